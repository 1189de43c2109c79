"""Fewer bits for the same weights: the array maths of weights that share values."""
