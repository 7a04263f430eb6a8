"""Training of elysium-nano from scratch, on generated clips."""
