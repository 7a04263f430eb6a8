from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.data.synthetic import assets
from elysium_core.data.synthetic.assets import Sprite, load_backgrounds, load_sprites, sprite_names
from elysium_core.data.synthetic.clips import ClipGenerator
from elysium_core.data.synthetic.compositing import apply_camera, draw_backgrounds, render_clip
from elysium_core.data.synthetic.scene import Motion, SceneConfig, draw_motion
from elysium_core.errors import ConfigError, DataError

SMALL = SceneConfig(side_px=64, procedural_share=1.0)


def small_generator(seed: int = 0, config: SceneConfig = SMALL) -> ClipGenerator:
    return ClipGenerator(sprite_names()[:6], [], seed, config)


def motion(centers, sides, *, angles=0.0, stretch=1.0, squash=1.0) -> Motion:
    """Motion of N objects over T frames from arrays (N, T, 2) and (N, T)."""
    centers, sides = np.asarray(centers, float), np.asarray(sides, float)
    angle = np.broadcast_to(np.asarray(angles, float), sides.shape)
    present = np.ones(sides.shape, bool)
    return Motion(centers, sides, angle, np.full(len(sides), stretch), squash, present)


def naive_alpha(sprite: Sprite, side: int, center, length: float, angle: float, stretch: float, squash: float):
    """Alpha (side, side) of a sprite, sampled from its full-size picture at every pixel centre in turn."""
    alpha = sprite.levels[0][..., 3].astype(float)
    size = alpha.shape[0]
    width, height = length * min(stretch, 1.0) / size, length / max(stretch, 1.0) / size
    drawn = np.zeros((side, side))
    for row in range(side):
        for column in range(side):
            x, y = (column + 0.5 - center[0] * side) / squash, row + 0.5 - center[1] * side
            u = (np.cos(angle) * x + np.sin(angle) * y) / width + size / 2 - 0.5
            v = (-np.sin(angle) * x + np.cos(angle) * y) / height + size / 2 - 0.5
            left, top = int(np.floor(u)), int(np.floor(v))
            for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
                if 0 <= left + dx < size and 0 <= top + dy < size:
                    weight = (1 - abs(u - left - dx)) * (1 - abs(v - top - dy))
                    drawn[row, column] += weight * alpha[top + dy, left + dx]
    return drawn


class TestDeterminism:
    def test_a_seed_gives_the_same_clip_byte_for_byte(self):
        first, second = (small_generator(3).draw(3, 2, (0.5, 1.0)) for _ in range(2))
        for name in ("images", "boxes", "visible", "owner", "name_index"):
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
        assert first.names == second.names

    def test_reseeding_forgets_what_was_drawn_before(self):
        generator = small_generator()
        generator.reseed(5, 6)
        first = generator.draw(2, 1, (0.5, 1.0))
        generator.draw(4, 3, (0.5, 1.0))
        generator.reseed(5, 6)
        np.testing.assert_array_equal(generator.draw(2, 1, (0.5, 1.0)).images, first.images)

    def test_other_numbers_give_another_clip(self):
        generator = small_generator()
        images = []
        for number in (1, 2):
            generator.reseed(5, number)
            images.append(generator.draw(1, 1, (0.5, 1.0)).images)
        assert (images[0] != images[1]).any()


class TestBoxes:
    @pytest.mark.parametrize(
        ("name", "center", "length", "angle", "stretch", "squash"),
        [
            ("football", (0.5, 0.5), 0.5, 0.0, 1.0, 1.0),
            ("key", (0.4, 0.55), 0.6, 0.4, 1.0, 1.0),
            ("car", (0.5, 0.45), 0.7, -0.3, 1.2, 1.0),
            ("guitar", (0.45, 0.5), 0.55, 1.0, 0.85, 0.5625),
        ],
    )
    def test_a_box_is_tight_round_the_solid_pixels(self, name, center, length, angle, stretch, squash):
        side = 64
        sprite = load_sprites([name])[0]
        full_size = Sprite(name, sprite.levels[:1])  # as the naive drawing, without the smaller levels
        place = motion([[center]], [[length]], angles=angle, stretch=stretch, squash=squash)
        drawn = render_clip(np.zeros((1, side, side, 3), np.uint8), [full_size], place)
        solid = naive_alpha(sprite, side, center, length * side, angle, stretch, squash) > 64
        rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
        expected = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
        # The warp's sampling grid of 1/32 px may decide an edge pixel the other way.
        np.testing.assert_allclose(drawn.boxes[0, 0] * side, expected, atol=1)
        assert ((drawn.owner[0] == 0) == solid).mean() > 0.99

    def test_boxes_hold_exactly_the_owned_pixels_of_an_uncovered_object(self):
        generator = small_generator(11)
        for _ in range(10):
            clip = generator.draw(2, 1, (0.5, 1.0))
            for t in range(2):
                owned = clip.owner[t] == 0
                rows, columns = np.flatnonzero(owned.any(1)), np.flatnonzero(owned.any(0))
                tight = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / 64
                np.testing.assert_array_equal(clip.boxes[0, t], tight.astype(np.float32))

    def test_a_box_is_cut_at_the_edge_of_the_frame(self):
        sprites = load_sprites(["football"])
        drawn = render_clip(np.zeros((1, 64, 64, 3), np.uint8), sprites, motion([[(0.0, 0.5)]], [[0.5]]))
        box = drawn.boxes[0, 0]
        assert box[0] == 0
        assert 0.2 < box[2] < 0.3
        assert drawn.visible[0, 0] == pytest.approx(0.5, abs=0.05)

    def test_an_object_outside_the_frame_has_no_box(self):
        sprites = load_sprites(["football"])
        drawn = render_clip(np.zeros((1, 64, 64, 3), np.uint8), sprites, motion([[(-0.6, 0.5)]], [[0.4]]))
        assert not drawn.boxes.any()
        assert drawn.visible[0, 0] == 0
        assert (drawn.owner == -1).all()


class TestOcclusion:
    def test_later_objects_cover_earlier_ones(self):
        sprites = load_sprites(["basketball", "football"])
        same_place = [[(0.5, 0.5)], [(0.5, 0.5)]]
        drawn = render_clip(np.zeros((1, 64, 64, 3), np.uint8), sprites, motion(same_place, [[0.5], [0.5]]))
        assert drawn.visible[0, 0] < 0.1
        assert drawn.visible[1, 0] == 1
        # The covered object keeps the box of all of it.
        np.testing.assert_allclose(drawn.boxes[0, 0], drawn.boxes[1, 0], atol=0.05)

    def test_visible_fractions_are_counts_of_the_owner_map(self):
        clip = small_generator(2).draw(3, 3, (0.5, 1.0))
        assert clip.owner.min() >= -1
        assert clip.owner.max() <= 2
        for n in range(3):
            assert ((clip.owner == n).any(axis=(1, 2)) == (clip.visible[n] > 0)).all()
            assert (clip.visible[n] <= 1).all()

    def test_a_vanished_object_leaves_nothing_behind(self):
        config = SceneConfig(side_px=64, procedural_share=1.0, vanish_share=1.0)
        clip = small_generator(4, config).draw(6, 2, (0.1, 0.2))
        vanished = [n for n in range(2) if clip.visible[n, -1] == 0]
        assert len(vanished) == 1
        assert not clip.boxes[vanished[0], -1].any()
        assert (clip.owner[-1] != vanished[0]).all()


class TestTargets:
    @pytest.mark.parametrize(
        ("visible", "fair"),
        [
            ([1.0, 1.0], True),
            ([0.55, 0.25], True),
            ([0.5, 1.0], False),  # hardly seen where it is asked for
            ([1.0, 0.2], False),  # hidden later
            ([1.0, 0.0], False),  # gone later
        ],
    )
    def test_only_what_is_well_seen_throughout_is_fair(self, clip_of, visible, fair):
        assert clip_of([visible]).targets == ([0] if fair else [])

    @pytest.mark.parametrize(
        ("visible", "vanishes"),
        [([1.0, 1.0], False), ([1.0, 0.0], True), ([0.4, 0.0], False), ([1.0, 0.1, 0.0], False)],
    )
    def test_what_is_gone_must_have_been_clear_before(self, clip_of, visible, vanishes):
        assert clip_of([visible]).vanishing == ([0] if vanishes else [])

    def test_drawing_with_a_target_gives_one(self):
        generator = small_generator(1)
        assert all(generator.draw_with_target(3, 4, (1.0, 5.0)).targets for _ in range(5))


class TestScenes:
    @given(st.integers(0, 2**32), st.integers(1, 5), st.integers(1, 40))
    def test_motion_stays_in_its_ranges(self, seed, objects, frames):
        config = SceneConfig()
        drawn = draw_motion(np.random.default_rng(seed), config, objects, np.linspace(0, 60, frames))
        assert drawn.center.shape == (objects, frames, 2)
        assert (drawn.center >= 0.06).all()
        assert (drawn.center <= 0.94).all()
        assert (drawn.side >= config.min_side - 1e-9).all()
        assert (drawn.side <= config.max_side + 1e-9).all()
        assert drawn.squash in config.aspects
        assert drawn.present.all()

    @pytest.mark.parametrize(
        "values", [{"min_side": 0.0}, {"min_side": 0.6}, {"max_side": 1.1}, {"side_px": 16}, {"side_px": 2000}]
    )
    def test_impossible_ranges_are_refused(self, values):
        with pytest.raises(ConfigError):
            SceneConfig(**values)

    @pytest.mark.parametrize("share", [0.0, 1.0])
    def test_backgrounds_have_the_asked_size_and_pan(self, share):
        photo = np.random.default_rng(0).integers(0, 255, (70, 90, 3)).astype(np.uint8)
        drawn = draw_backgrounds(np.random.default_rng(1), [photo], 48, np.array([0.0, 30.0]), share)
        assert drawn.shape == (2, 48, 48, 3)
        assert drawn.dtype == np.uint8
        if share == 0.0:
            assert (drawn[0] != drawn[1]).any()

    def test_the_camera_changes_levels_and_never_the_input(self):
        images = np.full((2, 32, 32, 3), 100, np.uint8)
        taken = apply_camera(np.random.default_rng(0), images)
        assert taken.shape == images.shape
        assert (taken != images).any()
        assert (images == 100).all()


class TestAssets:
    def test_every_name_has_a_sprite_of_its_own(self):
        sprites = load_sprites(sprite_names())
        assert len(set(sprite_names())) == len(sprites) >= 80
        assert all((sprite.levels[0][..., 3] > 64).mean() > 0.1 for sprite in sprites)

    def test_levels_halve_and_are_premultiplied(self):
        sprite = load_sprites(["apple"])[0]
        sides = [level.shape[0] for level in sprite.levels]
        assert sides == [96, 48, 24]
        assert all((level[..., :3].max(axis=-1) <= level[..., 3].astype(int) + 1).all() for level in sprite.levels)

    def test_unknown_names_are_all_told(self):
        with pytest.raises(DataError, match="'minotaur', 'yeti'"):
            load_sprites(["minotaur", "apple", "yeti"])

    def test_the_splits_share_no_background(self, tmp_path):
        # Training never looks into the package; what ships is for tests alone.
        shipped = load_backgrounds("test", side_px=32)
        assert len(shipped) == 8
        assert load_backgrounds("train", [tmp_path]) == []
        assert not any(folder.is_relative_to(assets._ASSETS) for folder in assets.SYSTEM_PHOTO_FOLDERS)

    def test_without_photos_it_says_what_to_install(self, tmp_path, caplog):
        load_backgrounds("train", [tmp_path])
        assert "gnome-backgrounds" in caplog.text

    def test_blank_pictures_and_screenshots_are_left_out(self, tmp_path):
        import cv2

        noisy = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
        for name, picture in (("photo.png", noisy), ("screenshot.png", noisy), ("blank.png", noisy * 0 + 9)):
            cv2.imwrite(str(tmp_path / name), picture)
        (tmp_path / "broken.jpg").write_bytes(b"no picture")
        assert len(load_backgrounds("train", [tmp_path], side_px=32)) == 1

    def test_an_unknown_split_is_refused(self):
        with pytest.raises(DataError, match="'val'"):
            load_backgrounds("val")
