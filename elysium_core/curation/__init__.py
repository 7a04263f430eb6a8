"""Referring tracks made from captioned videos: the construction of ElysiumTrack-1M (paper, section 3.2)."""
