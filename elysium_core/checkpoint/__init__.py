"""Checkpoints: locating, checking, loading, saving and quantising them."""
