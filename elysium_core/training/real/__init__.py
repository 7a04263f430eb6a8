"""Training of the model that follows objects in real video and finds named things in it."""
