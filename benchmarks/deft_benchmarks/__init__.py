"""Noise models, data sets, metrics and comparisons."""
