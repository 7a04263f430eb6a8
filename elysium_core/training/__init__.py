"""Training: losses, optimisers, recipes, and the loop that runs the stages."""
