"""Benchmarks of the engine, the vision encoder, the node and the clip generator. They are not installed."""
