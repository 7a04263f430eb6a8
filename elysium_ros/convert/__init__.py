"""Conversions between ROS messages and frames, boxes and pictures. No node here."""
