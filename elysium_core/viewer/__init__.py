"""The web page that shows what is tracked, and takes requests: its protocol, its server, and a backend without ROS."""
