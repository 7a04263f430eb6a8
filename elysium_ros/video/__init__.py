"""The video node: plays a video, a folder of images or a V4L2 device as a camera."""
