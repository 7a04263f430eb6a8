"""The engine: embeddings and tokens in, tokens and scores out; knows no images, boxes or ROS."""
