"""``python -m bench NAME``."""

from bench.app import app

app(prog_name="python -m bench")
