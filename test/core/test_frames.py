from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.errors import ImageError
from elysium_core.frames import Clip, ClipWindow, Frame


def frame(index: int = 0, height: int = 2, width: int = 3) -> Frame:
    return Frame(np.zeros((height, width, 3), np.uint8), index=index)


@pytest.mark.parametrize(
    "image",
    [
        None,
        [[0, 0, 0]],
        np.zeros((2, 2), np.uint8),
        np.zeros((2, 2, 4), np.uint8),
        np.zeros((2, 2, 3), np.float32),
        np.zeros((3, 2, 2), np.uint8),
        np.zeros((1, 2, 2, 3), np.uint8),
        np.zeros((0, 2, 3), np.uint8),
        np.zeros((2, 0, 3), np.uint8),
    ],
)
def test_what_is_no_rgb_picture_is_refused(image):
    with pytest.raises(ImageError):
        Frame(image)


def test_a_frame_that_is_too_large_is_refused():
    huge = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (10_000, 10_000, 3))
    with pytest.raises(ImageError, match="10000x10000 px") as error:
        Frame(huge)
    assert error.value.code == "IMG_TOO_LARGE"


def test_a_frame_knows_its_size():
    assert (frame().width, frame().height) == (3, 2)


def test_a_clip_has_frames_of_one_size():
    assert len(Clip((frame(), frame()))) == 2
    with pytest.raises(ImageError, match="at least one"):
        Clip(())
    with pytest.raises(ImageError, match="one size"):
        Clip((frame(), frame(height=5)))


@given(st.integers(2, 32), st.data(), st.integers(0, 300))
def test_clips_cover_every_frame_and_add_something_each(length, data, frame_count):
    overlap = data.draw(st.integers(1, length - 1))
    spans = ClipWindow(length, overlap).spans(frame_count)
    assert sorted({index for start, stop in spans for index in range(start, stop)}) == list(range(frame_count))
    assert all(stop - start <= length for start, stop in spans)
    for (_, end), (start, stop) in itertools.pairwise(spans):
        assert end - start == overlap
        assert stop > end


def test_the_papers_clips():
    assert ClipWindow().spans(15) == [(0, 8), (7, 15)]
    assert ClipWindow().spans(16) == [(0, 8), (7, 15), (14, 16)]
    assert ClipWindow().spans(1) == [(0, 1)]


@pytest.mark.parametrize(("length", "overlap"), [(1, 1), (8, 0), (8, 8), (8, -1)])
def test_a_window_without_progress_is_refused(length, overlap):
    with pytest.raises(ValueError, match="clip window"):
        ClipWindow(length, overlap)
