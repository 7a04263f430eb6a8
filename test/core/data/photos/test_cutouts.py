from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from elysium_core.data.photos import cutout_cache
from elysium_core.data.photos.cutout_cache import CutoutCache, list_jobs, make_cutouts
from elysium_core.data.photos.cutouts import (
    SOLID_ALPHA,
    CutoutLibrary,
    look_the_same,
    make_cutout,
    mirrored,
    packaged_sprites,
    recolored,
)
from elysium_core.data.photos.grabcut import CutSettings, Rejected, cut_out
from elysium_core.data.photos.photo_set import PhotoSet
from elysium_core.data.synthetic.assets import held_out_names
from elysium_core.errors import ConfigError, DataError
from elysium_core.geometry import Box

RED = (220, 40, 30)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(cutout_cache, "CHUNK_OBJECTS", 5)


@pytest.fixture(scope="module")
def cut(category_folder, tmp_path_factory) -> Path:
    """Cut-outs in chunks of five; read only."""
    folder = tmp_path_factory.mktemp("made") / "cut"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutout_cache, "CHUNK_OBJECTS", 5)
        list(make_cutouts(PhotoSet.open([category_folder]), folder))
    return folder


@pytest.fixture
def made(cut, tmp_path, small_chunks) -> CutoutCache:
    """A copy of them that a test may damage."""
    return CutoutCache(shutil.copytree(cut, tmp_path / "cut"))


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


class TestGrabCut:
    def test_an_object_is_cut_along_its_outline(self, drawing):
        box = Box(0.3, 0.25, 0.7, 0.75)
        rgba = cut_out(drawing.with_ellipse(drawing.texture(0), box, RED), box, CutSettings(), is_true_box=True)
        height, width = rgba.shape[:2]
        # The box with its margins is 144 px wide and is worked on at 120 px.
        assert width == pytest.approx(0.4 * 240 * 120 / 144, abs=2)
        assert height == pytest.approx(0.5 * 180 * 120 / 144, abs=2)
        truth = drawing.with_ellipse(np.zeros((height, width, 3), np.uint8), (0, 0, 1, 1), (1, 1, 1))[..., 0]
        assert ((rgba[..., 3] > 127) == truth).mean() > 0.96
        assert rgba[height // 2, width // 2].tolist() == [*RED, 255]

    def test_two_cuts_are_equal_whatever_opencv_drew_before(self, drawing):
        box, image = Box(0.3, 0.2, 0.7, 0.8), drawing.texture(4)
        image[50:130, 80:160] = np.random.default_rng(1).integers(90, 255, (80, 80, 3))
        first = cut_out(image, box, CutSettings(share=(0.0, 1.0)), is_true_box=False)
        cv2.setRNGSeed(77)
        second = cut_out(image, box, CutSettings(share=(0.0, 1.0)), is_true_box=False)
        assert first is second if isinstance(first, Rejected) else (first == second).all()

    @pytest.mark.parametrize(
        ("shapes", "is_true", "reasons"),
        [
            ([], True, set(Rejected)),
            ([(0.45, 0.45, 0.55, 0.55)], True, {Rejected.SHARE}),
            ([(0.27, 0.27, 0.47, 0.73), (0.53, 0.27, 0.73, 0.73)], True, {Rejected.PIECES}),
            ([(0.26, 0.26, 0.48, 0.74)], True, {Rejected.EXTENT}),
        ],
        ids=["nothing", "too small", "two pieces", "half of the box"],
    )
    def test_bad_cuts_are_rejected(self, drawing, shapes, is_true, reasons):
        image = drawing.texture(7)
        for shape in shapes:
            drawing.with_ellipse(image, shape, RED)
        result = cut_out(image, Box(0.25, 0.25, 0.75, 0.75), CutSettings(), is_true_box=is_true)
        assert isinstance(result, Rejected)
        assert result in reasons

    def test_small_objects_and_pictures_in_pictures_are_rejected(self, drawing):
        small = cut_out(drawing.texture(0), Box(0.5, 0.5, 0.55, 0.6), CutSettings(), is_true_box=True)
        assert small is Rejected.SMALL
        image = drawing.texture(0)
        image[40:140, 60:180] = RED
        assert cut_out(image, Box(0.2, 0.15, 0.8, 0.85), CutSettings(), is_true_box=False) is Rejected.BOX


class TestCache:
    def test_objects_that_are_worth_a_try(self, annotated_folder, category_folder):
        photos = PhotoSet.open([annotated_folder, category_folder])
        jobs = list_jobs(photos)
        assert sum(job.is_true_box for job in jobs) == 60
        assert {job.name for job in jobs if not job.is_true_box} == {"ball", "egg"}
        assert list_jobs(photos, 7) == jobs[:7]

    def test_names_pixels_and_reasons_come_back(self, made):
        assert len(made) + sum(made.rejected.values()) == made.tried == 24
        assert len(made) >= 15
        for index, stored in enumerate(made.cutouts):
            rgba = made.read(index)
            red, _, blue = rgba[rgba[..., 3] == 255][:, :3].mean(axis=0)
            assert stored.name == ("ball" if red > blue else "egg")
            assert stored.photo.startswith(stored.name + "/")

    @pytest.mark.parametrize("chunks", [1, 3])
    def test_a_run_that_was_killed_is_continued_with_the_same_result(self, category_folder, tmp_path, made, chunks):
        code = f"""
import sys
from pathlib import Path
from elysium_core.data.photos import cutout_cache
from elysium_core.data.photos.photo_set import PhotoSet
cutout_cache.CHUNK_OBJECTS = 5
for done, total in cutout_cache.make_cutouts(PhotoSet.open([Path({str(category_folder)!r})]), Path(sys.argv[1])):
    print(done, flush=True)
    if done == {5 * chunks}:
        sys.stdin.read()
"""
        folder = tmp_path / "killed"
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
        )
        for _ in range(chunks):
            assert process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        with pytest.raises(DataError, match="unfinished"):
            CutoutCache(folder)
        # What a kill in the middle of writing leaves: pixels without an index, and a temporary file.
        (folder / f"chunk-{chunks:05d}.rgba").write_bytes(b"half")
        times = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.json")}
        list(make_cutouts(PhotoSet.open([category_folder]), folder))
        assert files_of(folder) == files_of(tmp_path / "cut")
        assert all((folder / name).stat().st_mtime_ns == time for name, time in times.items())

    def test_other_photos_or_settings_need_another_folder(self, category_folder, annotated_folder, tmp_path, made):
        with pytest.raises(ConfigError, match="settings"):
            list(make_cutouts(PhotoSet.open([category_folder]), tmp_path / "cut", CutSettings(iterations=1)))
        with pytest.raises(ConfigError, match="photos"):
            list(make_cutouts(PhotoSet.open([annotated_folder]), tmp_path / "cut"))
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "letter.txt").write_text("dear")
        with pytest.raises(ConfigError, match="other files"):
            list(make_cutouts(PhotoSet.open([category_folder]), tmp_path / "mine"))

    def test_photos_without_objects_are_an_error(self, plain_photos, tmp_path):
        with pytest.raises(DataError, match="neither boxes nor categories"):
            list(make_cutouts(plain_photos, tmp_path / "cut"))

    @pytest.mark.parametrize(
        "damage",
        [
            lambda folder: (folder / "cutouts.json").write_text("{"),
            lambda folder: (folder / "cutouts.json").write_text('{"objects": "many"}'),
            lambda folder: (folder / "chunk-00001.json").write_text("[]"),
            lambda folder: (folder / "chunk-00001.json").write_text('{"cutouts": [{"name": 1}], "rejected": {}}'),
            lambda folder: [path.write_bytes(path.read_bytes()[:100]) for path in folder.glob("*.rgba")],
            lambda folder: [path.unlink() for path in folder.glob("*.rgba")],
        ],
    )
    def test_damage_is_named(self, made, tmp_path, damage):
        damage(tmp_path / "cut")
        with pytest.raises(DataError, match="cut"):
            CutoutCache(tmp_path / "cut").read(0)

    def test_a_folder_without_cutouts_is_an_error(self, tmp_path):
        with pytest.raises(DataError, match="no cut-outs"):
            CutoutCache(tmp_path)

    def test_unreadable_photos_are_counted(self, category_folder, tmp_path, small_chunks):
        photos = PhotoSet.open([category_folder])
        copies = tmp_path / "photos" / "ball"
        copies.mkdir(parents=True)
        (copies / "1.png").write_bytes(b"no picture")
        (copies / "2.png").write_bytes((category_folder / photos.key(0)).read_bytes())
        list(make_cutouts(PhotoSet.open([tmp_path / "photos"]), tmp_path / "cut"))
        assert CutoutCache(tmp_path / "cut").rejected[Rejected.UNREADABLE.value] == 1


class TestLibrary:
    def test_cutouts_are_trimmed_and_their_hull_is_their_extent(self, drawing):
        rgba = np.zeros((90, 120, 4), np.uint8)
        drawing.with_ellipse(rgba, (0.25, 0.2, 0.75, 0.8), (200, 10, 10, 255))
        cutout = make_cutout("thing", "a.png", rgba)
        assert (cutout.width, cutout.height) == (60, 54)
        assert [*cutout.hull.min(axis=0), *cutout.hull.max(axis=0)] == [0, 0, 60, 54]
        assert cutout.solid_px == (rgba[..., 3] > SOLID_ALPHA).sum()
        assert make_cutout("nothing", "a.png", np.zeros((90, 120, 4), np.uint8)) is None

    def test_a_mirror_image_has_the_mirrored_outline(self, drawing):
        cutout = drawing.disc_cutout()
        cutout.pixels[:, :20] = 0
        left = make_cutout("half", "a", cutout.pixels)
        assert (mirrored(left).pixels == left.pixels[:, ::-1]).all()
        assert sorted(mirrored(left).hull[:, 0]) == sorted(left.width - left.hull[:, 0])

    @pytest.mark.parametrize("color", [RED, (20, 160, 40), (120, 120, 120), (12, 12, 12), (250, 250, 250)])
    def test_another_colour_is_clearly_another(self, drawing, color):
        cutout = drawing.disc_cutout(color=color)
        for seed in range(10):
            other = recolored(cutout, np.random.default_rng(seed))
            assert (other.pixels[..., 3] == cutout.pixels[..., 3]).all()
            first, second = (
                item.pixels[item.pixels[..., 3] == 255][:, :3].astype(float).mean(0) for item in (cutout, other)
            )
            first, second = first - first.mean(), second - second.mean()
            assert np.abs(first - second).max() > 20

    def test_a_namesake_is_of_another_photo_and_looks_different(self, made, drawing):
        library = CutoutLibrary(made, sprites=[])
        rng = np.random.default_rng(0)
        cutout = next(found for _ in range(100) if (found := library.draw(rng, 0.0)).name == "ball")
        for _ in range(20):
            other = library.draw_named(rng, "ball", other_than=cutout)
            if other is not None:
                assert other.name == "ball"
                assert other.key != cutout.key
                assert not look_the_same(other, cutout)
        assert library.draw_named(rng, "elephant") is None

    def test_a_copy_and_its_mirror_image_look_the_same(self, drawing):
        cutout = drawing.disc_cutout()
        cutout.pixels[:, :30, 0] = 0
        assert look_the_same(cutout, mirrored(cutout))
        assert not look_the_same(cutout, drawing.disc_cutout(color=(10, 200, 10)))

    def test_parts_share_no_photo(self, made):
        library = CutoutLibrary(made)
        parts = [library.part(held_out=held_out) for held_out in (False, True)]
        assert sum(len(part) for part in parts) == len(library)
        rng = np.random.default_rng(0)
        keys = [{part.draw(rng, 0.5).key for _ in range(300)} for part in parts]
        assert not keys[0] & keys[1]

    def test_sprites_that_are_never_trained_on_are_not_among_them(self):
        names = {sprite.name for sprite in packaged_sprites()}
        assert len(names) > 200
        assert not names & set(held_out_names())

    def test_a_library_without_cutouts_is_an_error(self):
        with pytest.raises(DataError, match="no cut-out"):
            CutoutLibrary(sprites=[])

    def test_the_claim_names_what_was_cut(self, made, tmp_path):
        claim = json.loads((tmp_path / "cut" / "cutouts.json").read_text())
        assert claim["objects"] == 24
        assert claim["settings"]["work_px"] == CutSettings().work_px
