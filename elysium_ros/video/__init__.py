"""A video file as a camera."""
