"""``python -m elysium_ros.demo``: starts :mod:`elysium_ros.demo.demo`; Ctrl-C while it is imported ends it quietly."""

import os
import signal
import sys

_INTERRUPTED = 130


def main() -> int:
    """Run the demo; return its exit code."""
    signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    from elysium_ros.demo.demo import main as run

    signal.signal(signal.SIGINT, signal.default_int_handler)
    return run()


if __name__ == "__main__":
    sys.exit(main())
