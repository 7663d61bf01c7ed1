"""Noise models: wrong labels put in on purpose, so that the truth is known."""
