"""Benchmarks: speed and memory of the engine, the vision encoder, the node and the data pipeline. Not installed."""
