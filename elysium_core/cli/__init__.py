"""The ``elysium`` command: one module for each verb."""
