from __future__ import annotations

import hashlib

import numpy as np
import pytest

from elysium_core.data.photos import still_clips
from elysium_core.data.photos.clip_motion import ClipEvent
from elysium_core.data.photos.cutouts import CutoutLibrary, make_cutout
from elysium_core.data.photos.photo_set import PhotoSet
from elysium_core.data.photos.still_clips import SEEN, UNSEEN, StillClips, StillClipSettings
from elysium_core.errors import ConfigError, DataError

SMALL = {"frames": 40, "width": 160, "height": 120, "distractors": (0, 0)}


@pytest.fixture
def clips_with(plain_photos, drawing):
    """Make the clips of one event, with a disc of the mark's colour and a blue one in front."""

    def make(event, sprites=None, **changes):
        settings = StillClipSettings(events=(event,), camera=drawing.neutral, **(SMALL | changes))
        library = CutoutLibrary(sprites=sprites or [drawing.disc_cutout()])
        return StillClips(plain_photos, library, settings)

    return make


@pytest.mark.parametrize("event", [ClipEvent.NONE, ClipEvent.LEAVES, ClipEvent.GONE])
def test_boxes_are_the_extent_of_the_objects_pixels(clips_with, drawing, event):
    for index in range(4):
        clip = clips_with(event).draw(0, index)
        for image, box, visible in zip(clip.images, clip.boxes, clip.visible, strict=True):
            found = drawing.marked_box(image)
            pixels = box * [160, 120, 160, 120]
            if visible > 0.98:
                assert np.abs(found - pixels).max() <= 1.2
            elif not box.any():
                assert found is None or np.prod(found[2:] - found[:2]) <= 4
            else:  # cut by the frame: the pixels that are left lie in the box
                assert found is None or ((found - pixels) * [1, 1, -1, -1]).min() >= -1.2


def test_the_object_stays_where_nothing_happens(clips_with):
    for index in range(4):
        assert clips_with(ClipEvent.NONE).draw(1, index).is_seen.all()


def test_the_object_leaves_and_comes_back(clips_with):
    for index in range(4):
        clip = clips_with(ClipEvent.LEAVES).draw(1, index)
        assert clip.is_seen[0]
        assert clip.is_seen[-1]
        assert clip.is_gone.sum() >= 3
        assert not clip.boxes[clip.visible == 0].any()


def test_the_object_is_gone_for_good(clips_with, drawing):
    for index in range(4):
        clip = clips_with(ClipEvent.GONE).draw(1, index)
        first = int(np.flatnonzero(clip.is_gone)[0])
        assert 0 < first < 30
        assert clip.is_gone[first:].all()
        assert not clip.boxes[first:].any()
        assert all(drawing.marked_box(image) is None for image in clip.images[first:])


def test_a_covered_object_keeps_its_box(clips_with, drawing):
    rectangle = np.full((60, 60, 4), (0, 0, 255, 255), np.uint8)
    cover = make_cutout("cover", "cover.png", rectangle)
    clips = clips_with(ClipEvent.COVERED, sprites=[drawing.disc_cutout(), cover])
    for index in range(4):
        clip = clips.draw(2, index)
        assert clip.is_gone.sum() >= 3
        assert clip.is_seen[0]
        assert clip.is_seen[-1]
        assert clip.boxes.any(axis=1).mean() > 0.9


def test_a_clip_depends_on_seed_and_number_alone(plain_folder, drawing):
    def digests(order):
        clips = StillClips(PhotoSet.open([plain_folder]), settings=StillClipSettings(**SMALL))
        return {index: hashlib.sha256(clips.draw(7, index).images.tobytes()).hexdigest() for index in order}

    found = digests([0, 1, 2])
    assert found == digests([2, 0, 1])
    assert len(set(found.values())) == 3


def test_shapes_types_and_order_of_sides(plain_photos):
    clip = StillClips(plain_photos, settings=StillClipSettings(frames=30, width=200, height=100)).draw(0, 0)
    assert (clip.images.shape, clip.images.dtype) == ((30, 100, 200, 3), np.uint8)
    assert (clip.boxes.shape, clip.boxes.dtype) == ((30, 4), np.float32)
    assert clip.boxes.min() >= 0
    assert clip.boxes.max() <= 1
    assert not (clip.is_seen & clip.is_gone).any()
    assert 0 < UNSEEN < SEEN < 1
    assert clip.name


def test_the_background_moves_and_the_object_moves_on_its_own(clips_with):
    clip = clips_with(ClipEvent.NONE, pan=0.02, frames=60).draw(3, 0)
    corner = clip.images[:, :20, :20].astype(int)
    assert np.abs(corner[0] - corner[-1]).mean() > 3
    middles = (clip.boxes[:, :2] + clip.boxes[:, 2:]) / 2
    steps = np.abs(np.diff(middles, axis=0)).max()
    assert 0.001 < steps < 0.1


def test_the_packaged_photos_and_sprites_are_enough():
    clip = StillClips(PhotoSet.packaged(), settings=StillClipSettings(frames=30)).draw(0, 0)
    assert clip.images.std() > 10


@pytest.mark.parametrize(
    "wrong",
    [
        {"frames": 0, "events": (ClipEvent.NONE,)},
        {"frames": 10},
        {"width": 10},
        {"size": (0.5, 0.2)},
        {"like_share": 2.0},
        {"distractors": (3, 1)},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        StillClipSettings(**wrong)


def test_an_event_that_is_never_seen_is_an_error(clips_with, monkeypatch):
    monkeypatch.setattr(still_clips, "_fits", lambda *_: False)
    monkeypatch.setattr(still_clips, "_MOST_TRIES", 4)
    with pytest.raises(DataError, match="leaves and comes back' was found in 4 tries"):
        clips_with(ClipEvent.LEAVES).draw(0, 0)
