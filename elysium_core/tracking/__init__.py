"""Following targets through one stream of frames: the contract, its settings, and the trackers."""
