"""Generated video with true boxes: training data of nano, the frozen test set and the demo."""
