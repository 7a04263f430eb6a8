"""The node's work without ROS: images and targets of the cameras, and the thread that runs the model."""
