"""Video that this project generates, with the truth about every object in it."""
