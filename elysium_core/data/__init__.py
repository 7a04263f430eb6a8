"""Datasets: readers of every layout, mixtures, and the generator of synthetic video."""
