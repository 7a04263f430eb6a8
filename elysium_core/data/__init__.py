"""Data sets: readers of the published layouts, and a generator of synthetic video."""
