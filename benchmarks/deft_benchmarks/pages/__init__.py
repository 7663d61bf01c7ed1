"""The page of a benchmark: plots, rank diagrams, tables."""
