from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.errors import VideoError
from elysium_core.frames import Frame
from elysium_core.io.recording import Recording
from elysium_core.io.sampling import description_frames, even_positions, sample_evenly, sample_recording

IMAGE = np.zeros((2, 2, 3), np.uint8)


class Numbers(Recording):
    """A recording of ``length`` frames that claims to have ``claimed``; those in ``damaged`` cannot be decoded."""

    name, width, height, fps = "numbers", 2, 2, 30.0

    def __init__(self, length: int, claimed: int | None, is_live: bool = False, damaged: tuple[int, ...] = ()) -> None:
        self.length, self.frame_count, self.is_live, self.damaged = length, claimed, is_live, damaged

    def __iter__(self) -> Iterator[Frame]:
        return (Frame(IMAGE, index=index) for index in range(self.length) if index not in self.damaged)


def indices(*args, **kwargs) -> list[int]:
    return [frame.index for frame in sample_recording(*args, **kwargs)]


@given(st.integers(0, 200), st.integers(1, 50))
def test_even_samples_are_distinct_and_reach_both_ends(length, count):
    numbers = list(range(length))
    picked = sample_evenly(numbers, count)
    assert len(picked) == len(set(picked)) == min(length, count)
    assert picked == sorted(picked)
    assert picked[:1] == numbers[:1]
    if len(picked) > 1:
        assert picked[-1] == length - 1
        assert max(np.diff(picked)) - min(np.diff(picked)) <= 1


@given(st.integers(1, 200), st.integers(1, 50), st.data())
def test_a_frame_that_must_be_shown_replaces_the_nearest(length, count, data):
    keep = data.draw(st.integers(0, length - 1))
    with_it, without = even_positions(length, count, keep), even_positions(length, count)
    assert keep in with_it
    assert with_it == sorted(set(with_it))
    assert len(with_it) == len(without)
    (moved,) = set(without) - set(with_it) or {keep}
    assert abs(moved - keep) == min(abs(position - keep) for position in without)


@given(st.integers(1, 100), st.integers(1, 20), st.none() | st.integers(1, 120))
def test_samples_are_even_whatever_the_container_claims(length, count, claimed):
    expected = [int(index) for index in np.linspace(0, length - 1, min(count, length)).round()]
    assert indices(Numbers(length, claimed), count) == expected


@pytest.mark.parametrize("claimed", [None, 7, 12])
def test_damaged_frames_do_not_make_the_sample_smaller(claimed):
    recording = Numbers(12, claimed, damaged=(0, 4, 7, 11))
    assert indices(recording, 4) == [1, 3, 8, 10]
    assert indices(recording, 4, keep=9) == [1, 3, 9, 10]


@given(st.integers(1, 60), st.integers(1, 8), st.none() | st.integers(1, 80), st.data())
def test_a_wanted_frame_is_found_whatever_the_container_claims(length, count, claimed, data):
    keep = data.draw(st.integers(0, length - 1))
    assert indices(Numbers(length, claimed), count, keep=keep) == even_positions(length, count, keep)


@pytest.mark.parametrize("claimed", [None, 5, 50])
@pytest.mark.parametrize("count", [1, 8])
def test_a_frame_beyond_the_end_is_refused(claimed, count):
    with pytest.raises(VideoError, match=r"no frame 7 .* 0\.\.4") as error:
        sample_recording(Numbers(5, claimed), count, keep=7)
    assert error.value.code == "VIDEO_FRAME"


@pytest.mark.parametrize("is_live", [True, False])
def test_a_recording_without_frames_is_refused(is_live):
    with pytest.raises(VideoError) as error:
        sample_recording(Numbers(0, None, is_live), 8)
    assert error.value.code == "VIDEO_EMPTY"


def test_of_a_camera_the_next_frames_are_taken():
    assert indices(Numbers(1000, None, is_live=True), 3) == [0, 1, 2]
    assert indices(Numbers(1000, None, is_live=True), 3, keep=2) == [2, 3, 4]


@pytest.mark.parametrize(("clip_length", "frames"), [(1, 1), (4, 4), (8, 8), (32, 8)])
def test_a_description_shows_no_more_than_the_model_was_trained_with(clip_length, frames):
    assert description_frames(clip_length) == frames
