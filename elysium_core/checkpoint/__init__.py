"""Checkpoints: finding, checking, loading, saving and quantising them."""
