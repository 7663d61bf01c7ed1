"""A matrix of cells: data sets, noises, seeds and selectors, each cell one measured result."""
