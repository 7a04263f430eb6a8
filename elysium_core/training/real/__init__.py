"""Training of the model that follows objects in real video."""
