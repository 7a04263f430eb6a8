"""The demo: a camera, the tracker node and a listener as real ROS 2 processes, and an honest report of what came out.

``python -m elysium_ros.demo`` runs it. In the order of use: :mod:`~elysium_ros.demo.report` (what there was to see),
:mod:`~elysium_ros.demo.recorder` (listens), :mod:`~elysium_ros.demo.stage` (starts, asks, plays, stops) and
:mod:`~elysium_ros.demo.report` (scores and says yes or no).
"""
