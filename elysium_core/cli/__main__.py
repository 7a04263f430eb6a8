"""``python -m elysium_core.cli`` runs the ``elysium`` command without an installed script."""

from elysium_core.cli.start import main

main()
