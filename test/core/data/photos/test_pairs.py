from __future__ import annotations

import hashlib
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from elysium_core.data.photos import photo_scene
from elysium_core.data.photos.contact_sheet import pair_sheet
from elysium_core.data.photos.cutouts import CutoutLibrary
from elysium_core.data.photos.pair_batches import ABSENCES, SCENE_KINDS, PairBatches
from elysium_core.data.photos.pair_generator import PairGenerator
from elysium_core.data.photos.pair_settings import PairSettings
from elysium_core.data.photos.photo_set import PhotoSet
from elysium_core.data.photos.scene_parts import Absence, SceneKind
from elysium_core.errors import ConfigError, DataError
from elysium_core.io.image import write_image

STILL = {"motion": 0.0, "scale": 0.0, "stretch": 0.0, "turn": 0.0, "tilt": 0.0, "bend": 0.0, "photo_bend": 0.0}
WARPS = {
    "none": {},
    "moved": {"motion": 0.6},
    "scaled": {"scale": 0.3},
    "stretched": {"stretch": 0.2},
    "turned": {"turn": 25.0},
    "tilted": {"tilt": 0.06},
    "bent": {"bend_share": 1.0, "bend": 0.08, "photo_bend": 0.03},
    "all": {"motion": 0.4, "scale": 0.2, "stretch": 0.1, "turn": 15.0, "tilt": 0.05, "bend": 0.08, "photo_bend": 0.03},
}
ONLY_CUTOUTS = {"cutout_share": 1.0, "true_box_share": 0.0}
ONLY_TRUE_BOXES = {"cutout_share": 0.0, "true_box_share": 1.0}
ONLY_REGIONS = {"cutout_share": 0.0, "true_box_share": 0.0}


def digest(pair) -> str:
    parts = (pair.anchor, pair.live, pair.anchor_box, pair.live_box, pair.like_boxes)
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


class TestTruth:
    """Objects have a colour that nothing else has: the live box has to be the extent of that colour."""

    @pytest.mark.parametrize("warp", WARPS)
    @pytest.mark.parametrize("kind", [ONLY_CUTOUTS, ONLY_TRUE_BOXES], ids=["cut-outs", "true boxes"])
    def test_the_live_box_is_the_extent_of_the_objects_pixels(
        self, plain_photos, annotated_photos, disc_library, clean_settings, drawing, kind, warp
    ):
        photos = plain_photos if kind is ONLY_CUTOUTS else annotated_photos
        settings = clean_settings(absent_share=0.0, beyond_share=0.0, **kind, **(STILL | WARPS[warp]))
        generator = PairGenerator(photos, disc_library, settings)
        whole = 0
        for index in range(12):
            pair = generator.draw(0, index)
            error = drawing.marked_box(pair.live) - pair.live_box * 128
            if pair.live_box.min() > 0 and pair.live_box.max() < 1:
                whole += 1
                assert np.abs(error).max() <= 1.0, index
            else:  # the crop cuts the box of the whole object, which may reach further than the pixels that are left
                assert (error * [1, 1, -1, -1]).min() >= -1.0, index
        assert whole >= 6

    def test_the_given_box_lies_around_the_object_in_the_anchor(
        self, plain_photos, disc_library, clean_settings, drawing
    ):
        settings = clean_settings(box_noise=0.0, loose_share=0.0, **ONLY_CUTOUTS)
        generator = PairGenerator(plain_photos, disc_library, settings)
        for index in range(12):
            pair = generator.draw(1, index)
            assert np.abs(drawing.marked_box(pair.anchor) - pair.anchor_box * 64).max() <= 1.0

    def test_given_boxes_are_noisy_and_some_are_loose(self, plain_photos, disc_library, clean_settings, drawing):
        settings = clean_settings(box_noise=0.0, loose_share=1.0, loose=0.3, **ONLY_CUTOUTS)
        generator = PairGenerator(plain_photos, disc_library, settings)
        wider = []
        for index in range(12):
            pair = generator.draw(1, index)
            tight = drawing.marked_box(pair.anchor)
            wider.append(pair.anchor_box * 64 - tight)
        assert (np.array(wider)[:, :2] <= 1).all()
        assert (np.array(wider)[:, 2:] >= -1).all()
        assert np.abs(wider).mean() > 2

    @pytest.mark.parametrize("absence", ["gone_share", "look_alike_share"])
    def test_an_absent_cutout_is_nowhere(self, plain_photos, disc_library, clean_settings, drawing, absence):
        shares = {"gone_share": 0.0, "look_alike_share": 0.0, absence: 1.0}
        settings = clean_settings(absent_share=1.0, **shares, **ONLY_CUTOUTS)
        generator = PairGenerator(plain_photos, disc_library, settings)
        for index in range(12):
            pair = generator.draw(2, index)
            assert not pair.is_present
            assert not pair.live_box.any()
            if absence == "gone_share":
                assert drawing.marked_box(pair.live) is None
                assert not pair.like_boxes.any()
            else:  # the only sprite in another colour, at the object's place
                assert pair.like_boxes[0].any()

    def test_an_object_of_a_photo_that_is_gone_is_outside_the_crop(
        self, annotated_photos, disc_library, clean_settings, drawing
    ):
        settings = clean_settings(
            absent_share=1.0, gone_share=1.0, look_alike_share=0.0, beyond_share=0.0, **ONLY_TRUE_BOXES
        )
        generator = PairGenerator(annotated_photos, disc_library, settings)
        pairs = [generator.draw(3, index) for index in range(40)]
        gone = [pair for pair in pairs if pair.absence is Absence.GONE]
        assert len(gone) > 10
        for pair in gone:
            found = drawing.marked_box(pair.live)
            assert found is None or np.prod(found[2:] - found[:2]) < 60

    def test_a_namesake_of_another_photo_is_a_boxed_look_alike(
        self, annotated_photos, disc_library, clean_settings, drawing, monkeypatch
    ):
        monkeypatch.setattr(photo_scene, "pictures_look_the_same", lambda *_: False)
        settings = clean_settings(absent_share=1.0, look_alike_share=1.0, gone_share=0.0, **ONLY_TRUE_BOXES)
        generator = PairGenerator(annotated_photos, disc_library, settings)
        for index in range(10):
            pair = generator.draw(4, index)
            assert pair.absence is Absence.LOOK_ALIKE
            assert not pair.live_box.any()
            like = pair.like_boxes[0] * 128
            if like.min() > 0 and like.max() < 128:
                assert np.abs(drawing.marked_box(pair.live) - like).max() <= 1.0

    def test_what_looks_the_same_is_no_look_alike(self, annotated_photos, disc_library, clean_settings):
        """All discs are equal, so that another scene takes the place; nothing in that looks like the object."""
        settings = clean_settings(
            absent_share=1.0, look_alike_share=1.0, gone_share=0.0, beyond_share=0.0, **ONLY_TRUE_BOXES
        )
        pair = PairGenerator(annotated_photos, disc_library, settings).draw(4, 0)
        assert pair.absence is Absence.OTHER_SCENE
        assert not pair.like_boxes.any()

    def test_look_alikes_beside_the_object_are_boxed(self, plain_photos, disc_library, clean_settings, drawing):
        settings = clean_settings(
            distractors=(2, 2), distractor_like_share=1.0, twin_share=0.0, absent_share=0.0, **ONLY_CUTOUTS
        )
        generator = PairGenerator(plain_photos, disc_library, settings)
        pairs = [generator.draw(5, index) for index in range(20)]
        assert sum(int(pair.like_boxes.any(-1).sum()) for pair in pairs) > 15
        for pair in pairs:
            for box in pair.like_boxes[pair.like_boxes.any(-1)]:
                x, y = ((box[:2] + box[2:]) * 64).astype(int)
                assert pair.live[y, x].std() > 20, "a dyed disc is colourful in its middle, clouds are gray-green"

    def test_of_two_equal_things_the_object_is_the_nearer_one(self, plain_photos, disc_library, clean_settings):
        settings = clean_settings(
            distractors=(1, 1), distractor_like_share=1.0, twin_share=1.0, absent_share=0.0, **ONLY_CUTOUTS
        )
        generator = PairGenerator(plain_photos, disc_library, settings)
        both = 0
        for index in range(60):
            pair = generator.draw(6, index)
            if pair.like_boxes.any():
                both += 1
                middles = [(box[:2] + box[2:]) / 2 - 0.5 for box in (pair.live_box, pair.like_boxes[0])]
                assert np.hypot(*middles[0]) < np.hypot(*middles[1])
        assert both > 15

    def test_what_is_in_front_covers_less_than_allowed(self, plain_photos, disc_library, clean_settings, drawing):
        settings = clean_settings(occluder_share=1.0, least_visible=0.5, absent_share=0.0, **ONLY_CUTOUTS)
        # The object is the only disc of the mark's colour; what covers it is blue.
        library = CutoutLibrary(sprites=[drawing.disc_cutout(), drawing.disc_cutout("blue", (0, 0, 255))])
        generator = PairGenerator(plain_photos, library, settings)
        for index in range(12):
            pair = generator.draw(7, index)
            assert pair.live_box[2] - pair.live_box[0] > 0.04


class TestShares:
    def test_kinds_and_negatives_have_their_shares(self, annotated_photos, clean_settings):
        settings = PairSettings(absent_share=0.3)
        generator = PairGenerator(annotated_photos, CutoutLibrary(), settings)
        pairs = [generator.draw(0, index) for index in range(200)]
        counts = {kind: sum(pair.kind is kind for pair in pairs) / 200 for kind in SceneKind}
        assert counts[SceneKind.CUTOUT] == pytest.approx(0.5, abs=0.14)
        assert counts[SceneKind.TRUE_BOX] == pytest.approx(0.3, abs=0.12)
        absent = [pair for pair in pairs if not pair.is_present]
        assert len(absent) / 200 == pytest.approx(0.3, abs=0.12)
        assert {pair.absence for pair in absent} == set(Absence) - {Absence.NONE}
        assert all((pair.absence is Absence.NONE) is pair.is_present for pair in pairs)

    def test_boxes_are_inside_and_not_tiny(self, annotated_photos):
        generator = PairGenerator(annotated_photos)
        for index in range(40):
            pair = generator.draw(8, index)
            for box in (pair.anchor_box, *([pair.live_box] if pair.is_present else [])):
                assert box.min() >= 0
                assert box.max() <= 1
                assert (box[2:] - box[:2]).min() >= 0.04 - 1e-6

    def test_photos_without_boxes_give_regions_instead(self, plain_photos, disc_library):
        generator = PairGenerator(plain_photos, disc_library)
        kinds = {generator.draw(0, index).kind for index in range(40)}
        assert kinds == {SceneKind.CUTOUT, SceneKind.REGION}

    def test_plain_photos_without_objects_are_an_error(self, tmp_path, drawing, clean_settings):
        for number in range(3):
            write_image(tmp_path / f"{number}.png", np.full((90, 120, 3), 80, np.uint8))
        gray = CutoutLibrary(sprites=[drawing.disc_cutout(color=(80, 80, 80))])
        with pytest.raises(DataError, match="plain"):
            PairGenerator(PhotoSet.open([tmp_path]), gray, clean_settings()).draw(0, 0)

    def test_unreadable_photos_are_drawn_around(self, plain_folder, tmp_path, disc_library):
        for path in sorted(plain_folder.glob("*.png"))[:10]:
            (tmp_path / path.name).write_bytes(path.read_bytes())
        for number in range(10):
            (tmp_path / f"broken{number}.png").write_bytes(b"\x89PNG broken")
        photos = PhotoSet.open([tmp_path])
        generator = PairGenerator(photos, disc_library)
        assert [generator.draw(0, index).live.shape for index in range(20)] == [(128, 128, 3)] * 20
        assert 1 <= photos.report.total <= 10


class TestDeterminism:
    def test_a_pair_depends_on_seed_and_number_alone(self, annotated_folder):
        forward = PairGenerator(PhotoSet.open([annotated_folder]))
        backward = PairGenerator(PhotoSet.open([annotated_folder]))
        first = [digest(forward.draw(3, index)) for index in range(12)]
        assert first == [digest(backward.draw(3, index)) for index in reversed(range(12))][::-1]
        assert len(set(first)) == 12
        assert digest(forward.draw(4, 0)) != first[0]

    def test_other_processes_draw_the_same_pairs(self, annotated_folder):
        code = f"""
import hashlib
from pathlib import Path
from elysium_core.data.photos.pair_generator import PairGenerator
from elysium_core.data.photos.photo_set import PhotoSet
generator = PairGenerator(PhotoSet.open([Path({str(annotated_folder)!r})]))
for index in (5, 0, 9):
    pair = generator.draw(3, index)
    parts = (pair.anchor, pair.live, pair.anchor_box, pair.live_box, pair.like_boxes)
    print(hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest())
"""
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        generator = PairGenerator(PhotoSet.open([annotated_folder]))
        assert other == [digest(generator.draw(3, index)) for index in (5, 0, 9)]


class TestBatches:
    def test_shapes_and_types(self, annotated_photos):
        batch = PairBatches(PairGenerator(annotated_photos), batch=6, seed=0, steps=2)[1]
        shapes = {name: tuple(getattr(batch, name).shape) for name in ("anchor", "live", "like_boxes", "live_box")}
        assert shapes == {
            "anchor": (6, 64, 64, 3),
            "live": (6, 128, 128, 3),
            "like_boxes": (6, 3, 4),
            "live_box": (6, 4),
        }
        assert (batch.anchor.dtype, batch.live_box.dtype) == (torch.uint8, torch.float32)
        assert (batch.is_present == (batch.absence == ABSENCES.index(Absence.NONE))).all()
        assert batch.kind.max() < len(SCENE_KINDS)
        assert batch.to(torch.device("cpu")).live is not None

    @pytest.mark.slow
    def test_worker_processes_give_the_batches_of_this_process(self, annotated_photos):
        batches = PairBatches(PairGenerator(annotated_photos), batch=3, seed=5, steps=4)
        # A forked process can hang on a lock that a thread of this one held.
        loaded = list(DataLoader(batches, batch_size=None, num_workers=1, multiprocessing_context="spawn"))
        for step, batch in enumerate(loaded):
            assert torch.equal(batch.live, batches[step].live)
            assert torch.equal(batch.live_box, batches[step].live_box)

    def test_steps_end(self, plain_photos, disc_library):
        batches = PairBatches(PairGenerator(plain_photos, disc_library), batch=1, seed=0, steps=2)
        assert len(batches) == 2
        with pytest.raises(IndexError):
            batches[2]

    @pytest.mark.parametrize("wrong", [{"batch": 0}, {"seed": -1}, {"steps": 0}])
    def test_numbers_out_of_range_are_refused(self, plain_photos, disc_library, wrong):
        with pytest.raises(ConfigError):
            PairBatches(PairGenerator(plain_photos, disc_library), **({"batch": 1, "seed": 0, "steps": 1} | wrong))


@pytest.mark.parametrize(
    "wrong",
    [
        {"absent_share": 1.5},
        {"cutout_share": 0.8, "true_box_share": 0.4},
        {"look_alike_share": 0.8, "gone_share": 0.4},
        {"object_px": (90.0, 20.0)},
        {"bend": 0.3},
        {"live_px": 4},
        {"wide": 0.5},
        {"least_visible": 0.0},
        {"motion": -1.0},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        PairSettings(**wrong)


def test_a_sheet_shows_every_pair(plain_photos, disc_library):
    generator = PairGenerator(plain_photos, disc_library)
    sheet = pair_sheet([generator.draw(0, index) for index in range(5)], columns=2)
    assert sheet.shape == (3 * 132, 2 * 260, 3)
    green = (sheet == (0, 255, 0)).all(-1)
    assert green[:132, :260].any()


def test_drawing_goes_on_and_its_speed_is_shown(annotated_photos, capsys):
    generator = PairGenerator(annotated_photos)
    generator.draw(0, 0)
    started = time.process_time()
    for index in range(50):
        generator.draw(0, index)
    rate = 50 / (time.process_time() - started)
    with capsys.disabled():
        sys.stdout.write(f" {rate:.0f} pairs a second on one core ")
