"""Clients of the tracker node: the shell command, a Python client, and nodes as processes."""
