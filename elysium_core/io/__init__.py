"""Reading and writing of pictures, videos and track files; drawing of tracks."""
