"""``python -m elysium_core.cli`` is the ``elysium`` command, also where no script is installed."""

from elysium_core.cli.app import main

main()
