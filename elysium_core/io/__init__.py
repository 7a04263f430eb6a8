"""Pictures, videos and track files: everything that is read from or written to disk for a person."""
