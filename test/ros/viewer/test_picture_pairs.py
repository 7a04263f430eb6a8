from __future__ import annotations

import pytest

from elysium_ros.viewer.picture_pairs import RESULTS_EXPECTED_S, PicturePairs


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def shown():
    return []


@pytest.fixture
def pairs(clock, shown):
    return PicturePairs(lambda image, result: shown.append((image, result)), clock)


def test_without_results_images_are_shown_at_once(pairs, shown):
    pairs.image(1, "a", 10)
    pairs.image(2, "b", 10)
    assert shown == [("a", None), ("b", None)]


def test_an_image_is_shown_with_its_result_and_skipped_ones_never(pairs, shown):
    pairs.result(1, "unseen")
    for stamp, image in ((2, "b"), (3, "c"), (4, "d"), (5, "e")):
        pairs.image(stamp, image, 10)
    pairs.result(4, "R4")
    pairs.result(5, "R5")
    pairs.result(3, "late")
    assert shown == [("d", "R4"), ("e", "R5")]


def test_a_result_may_come_before_its_image(pairs, shown):
    pairs.result(7, "R7")
    pairs.image(7, "g", 10)
    assert shown == [("g", "R7")]


def test_images_go_on_when_the_results_stop(pairs, shown, clock):
    pairs.result(1, "R1")
    pairs.image(2, "b", 10)
    assert shown == []
    clock.now_s += RESULTS_EXPECTED_S
    pairs.image(3, "c", 10)
    assert shown == [("c", None)]


def test_memory_is_bounded_by_number_and_bytes(pairs, shown):
    pairs.result(1, "R1")
    for stamp in range(10, 500):
        pairs.image(stamp, stamp, 1)
    pairs.result(10, "R10")  # no longer remembered
    pairs.result(499, "R499")
    for stamp in range(1000, 1010):
        pairs.image(stamp, stamp, 50 << 20)
    pairs.result(1007, "R1007")
    pairs.result(1009, "R1009")
    assert shown == [(499, "R499"), (1009, "R1009")]
