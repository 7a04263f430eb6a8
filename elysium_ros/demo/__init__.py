"""The demo: runs a video node and the tracker node as ROS 2 processes, records their messages, and scores the tracks.

``python -m elysium_ros.demo`` runs it. :mod:`~elysium_ros.demo.stage` starts the processes and asks for the targets,
:mod:`~elysium_ros.demo.recorder` records, and :mod:`~elysium_ros.demo.report` scores.
"""
