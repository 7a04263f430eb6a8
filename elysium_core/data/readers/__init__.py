"""Readers of the published layouts of tracking, grounding and question data sets."""
