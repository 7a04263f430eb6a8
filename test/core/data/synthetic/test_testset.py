from __future__ import annotations

import cv2
import numpy as np
import pytest

from elysium_core.data.synthetic import testset
from elysium_core.data.synthetic.assets import held_out_names, sprite_names, trainable_names
from elysium_core.data.synthetic.clips import TrainingClips
from elysium_core.data.synthetic.colors import NO_COLOR
from elysium_core.data.synthetic.expressions import references

_AVX2 = 11  # OpenCV has no public name for it
PART_OF = {part.clip_name(index): (part, index) for part in testset.PARTS for index in range(4)}
draws_as_frozen = pytest.mark.skipif(
    not cv2.__version__.startswith("5.") or not cv2.checkHardwareSupport(_AVX2),
    reason="the pixels were frozen with OpenCV 5 on x86-64 with AVX2",
)


@pytest.mark.parametrize("name", testset.FINGERPRINTS)
@draws_as_frozen
def test_the_frozen_clips_never_change(name):
    part, index = PART_OF[name]
    assert testset.fingerprint(part.draw(index)) == testset.FINGERPRINTS[name]


def test_the_boxes_are_the_same_on_every_machine():
    sample = testset.TEST.draw(1)
    assert sample.clip.names == ("bus", "backpack")
    pixels = (sample.clip.boxes[:, [0, -1]] * testset.SIDE_PX).round().astype(int).tolist()
    assert pixels == [[[88, 25, 122, 69], [42, 96, 77, 128]], [[70, 19, 97, 69], [74, 73, 87, 95]]]


def test_a_changed_pixel_changes_the_fingerprint():
    sample = testset.TEST.draw(0)
    before = testset.fingerprint(sample)
    sample.clip.images[3, 4, 5, 0] ^= 1
    assert testset.fingerprint(sample) != before


@draws_as_frozen
def test_this_machine_says_whether_it_draws_the_frozen_pixels(monkeypatch):
    assert testset.is_as_frozen(testset.TEST)
    monkeypatch.setitem(testset.FINGERPRINTS, "test-0000", "0" * 64)
    assert not testset.is_as_frozen(testset.TEST)


def test_parts_are_as_large_as_promised():
    assert [part.clips for part in testset.PARTS] == [200, 100, 60, 100, 60]
    assert testset.FRAMES == 30


@pytest.mark.parametrize("part", testset.PARTS, ids=lambda part: part.name)
def test_clips_hold_one_to_four_objects_in_turn(part):
    samples = [part.draw(index) for index in range(4)]
    assert [len(sample.clip.names) for sample in samples] == [1, 2, 3, 4]
    assert all(sample.targets for sample in samples)
    assert all(sample.clip.images.shape == (30, part.side_px, part.side_px, 3) for sample in samples)


def test_no_split_shares_a_sprite_with_the_held_out_ones():
    trained = set(trainable_names())
    assert set(testset.TEST.names) == set(testset.VANISHING.names) <= trained == set(testset.WORDS.names)
    assert set(testset.UNSEEN.names) == set(held_out_names())
    assert not trained & set(held_out_names())
    assert trained | set(held_out_names()) == set(sprite_names())
    clips = TrainingClips(frames=1, objects=(4, 4), photo_folders=(), side_px=32)
    assert all(set(clips.draw(index).clip.names) <= trained for index in range(20))


def test_only_the_words_part_has_twins_and_colours_that_are_not_natural():
    clips = {part: [part.draw(index).clip for index in range(8)] for part in (testset.TEST, testset.WORDS)}
    twins = {part: sum(len(set(clip.names)) < len(clip.names) for clip in clips[part]) for part in clips}
    assert twins[testset.TEST] == 0 < twins[testset.WORDS]
    kinds = {r.kind for clip in clips[testset.WORDS] for n in range(len(clip.names)) for r in references(clip, n)}
    assert kinds == {"name", "color", "size", "place"}
    assert any((clip.colors != NO_COLOR).any() for clip in clips[testset.WORDS])


def test_only_the_small_part_has_small_things():
    for part, low, high in ((testset.TEST, 0.1, 0.6), (testset.SMALL, 0.03, 0.15)):
        boxes = np.concatenate([part.draw(index).clip.boxes.reshape(-1, 4) for index in range(8)])
        longer = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
        # What is seen in part is smaller than it is; turned and squashed it may be larger.
        assert low < np.median(longer) < longer.max() < high, part.name


def test_a_clip_does_not_depend_on_those_drawn_before():
    alone = testset.UNSEEN.draw(2).clip.images
    testset.UNSEEN.draw(0)
    np.testing.assert_array_equal(testset.UNSEEN.draw(2).clip.images, alone)


@pytest.mark.parametrize("index", range(3))
def test_vanishing_objects_are_clear_and_then_gone_for_good(index):
    sample = testset.VANISHING.draw(index)
    (target,) = sample.targets
    gone = testset.gone_from(sample.clip, target)
    assert 5 <= gone <= 20
    assert (sample.clip.visible[target, :gone] >= 0.25).all()
    assert not sample.clip.boxes[target, gone:].any()


@pytest.mark.parametrize(("visible", "frame"), [([1, 1, 1], None), ([1, 0, 1], None), ([1, 0, 0], 1), ([0, 0, 0], 0)])
def test_gone_means_until_the_end(clip_of, visible, frame):
    assert testset.gone_from(clip_of([visible]), 0) == frame
