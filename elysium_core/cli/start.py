"""The installed command ``elysium``. It takes seconds to import; Ctrl-C during that ends it as it does later.

Imports nothing before it listens.
"""

from __future__ import annotations

import os
import signal

INTERRUPTED = 130
"""Exit code of a command that was stopped by Ctrl-C."""


def main() -> None:
    """Import the command and run it."""
    # A program in the background of a shell ignores Ctrl-C, and goes on doing so.
    listens = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if listens:
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    from elysium_core.cli.app import main as run

    if listens:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()
