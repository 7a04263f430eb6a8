"""Metrics and benchmark protocols: runs write plain results, reports read them."""
