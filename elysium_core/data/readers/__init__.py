"""Readers of the layouts in which the data sets of the field lie on disk."""
