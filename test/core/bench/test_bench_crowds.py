"""Generated crowds: what is written is what is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bench.crowds import emoji_crowd, write_crowd
from elysium_core.data.readers.mot import read_mot


def test_a_crowd_is_the_same_every_time_and_its_truth_survives_the_file(tmp_path: Path):
    crowd = emoji_crowd(0, 3, (4, 4))
    assert np.array_equal(crowd.images, emoji_crowd(0, 3, (4, 4)).images)
    assert (len(crowd.names), len(set(crowd.names)) <= 2) == (4, True)
    write_crowd(tmp_path / "c", crowd)
    [recording] = read_mot(tmp_path)
    assert (recording.frames.count, set(recording.names.values())) == (3, set(crowd.names))
    for frame, number, box in zip(recording.frame, recording.object_id, recording.boxes_xywh_px, strict=True):
        x1, y1, x2, y2 = crowd.boxes[number - 1, frame]
        np.testing.assert_allclose(box, [x1, y1, x2 - x1, y2 - y1], atol=0.011)
    for frame, number, counts in zip(recording.frame, recording.object_id, recording.counts, strict=True):
        assert counts == (crowd.visible[number - 1, frame] >= 0.25)
