"""The viewer of a tracker node: the page of ``elysium_core.viewer`` in front of the topics and services of the node."""
