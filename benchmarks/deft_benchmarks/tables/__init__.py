"""Tables and ranks of cells."""
