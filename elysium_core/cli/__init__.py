"""The ``elysium`` command, one module a verb."""
