"""Losses, schedules and stages, and the one loop that runs them."""
