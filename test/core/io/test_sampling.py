from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.errors import VideoError
from elysium_core.frames import Frame
from elysium_core.io.recording import Recording
from elysium_core.io.sampling import sample_recording

IMAGE = np.zeros((2, 2, 3), np.uint8)


class Numbers(Recording):
    """A recording of ``length`` frames that claims to have ``claimed``."""

    name, width, height, fps = "numbers", 2, 2, 30.0

    def __init__(self, length: int, claimed: int | None, is_live: bool = False) -> None:
        self.length, self.frame_count, self.is_live = length, claimed, is_live

    def __iter__(self) -> Iterator[Frame]:
        return (Frame(IMAGE, index=index) for index in range(self.length))


def indices(*args, **kwargs) -> list[int]:
    return [frame.index for frame in sample_recording(*args, **kwargs)]


@given(st.integers(1, 100), st.integers(1, 20), st.none() | st.integers(1, 120))
def test_samples_are_even_whatever_the_container_claims(length, count, claimed):
    expected = [int(index) for index in np.linspace(0, length - 1, min(count, length)).round()]
    assert indices(Numbers(length, claimed), count) == expected


@given(st.integers(1, 60), st.integers(1, 8), st.none() | st.integers(1, 80), st.data())
def test_samples_begin_where_they_are_asked_to(length, count, claimed, data):
    first = data.draw(st.integers(0, length - 1))
    found = indices(Numbers(length, claimed), count, first=first)
    assert found == [int(index) for index in np.linspace(first, length - 1, min(count, length - first)).round()]


@pytest.mark.parametrize("claimed", [None, 5, 50])
def test_a_frame_beyond_the_end_is_refused(claimed):
    with pytest.raises(VideoError, match=r"no frame 7 .* 0\.\.4") as error:
        sample_recording(Numbers(5, claimed), 8, first=7)
    assert error.value.code == "VIDEO_FRAME"


def test_of_a_camera_the_next_frames_are_taken():
    assert indices(Numbers(1000, None, is_live=True), 3) == [0, 1, 2]
    assert indices(Numbers(1000, None, is_live=True), 3, first=2) == [2, 3, 4]
