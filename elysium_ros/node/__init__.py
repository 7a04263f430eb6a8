"""The tracker node: lifecycle, parameters, services, action, publishers, diagnostics."""
