"""The node's work without ROS: mailbox, worker thread, camera streams, targets."""
