"""Photographs as training data: readers, cut-outs, pairs of stills and short clips with known truth."""
