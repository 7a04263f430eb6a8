"""The pool of features, and the pairs and frames in it."""

from __future__ import annotations

import pytest
import torch

from elysium_core.data.photos.frame_views import FrameViews
from elysium_core.data.photos.photo_set import PhotoSet
from elysium_core.errors import DataError
from elysium_core.training.real import feature_pool, stage_data
from elysium_core.training.real.feature_pool import Features, PooledFeatures
from elysium_core.training.real.frame_features import EncodedFrames
from elysium_core.training.real.real_run import RealStageRun
from elysium_core.training.real.stage_data import StageData
from elysium_core.training.recipes import load_any_recipe


@pytest.fixture
def pools(real_file, tmp_path, monkeypatch) -> dict[str, PooledFeatures]:
    """Pools of three blocks of two batches each, the blocks half as large as elsewhere."""
    for module in (feature_pool, stage_data):
        monkeypatch.setattr(module, "BLOCK", 16)
    changes = ["data.pool=48", "data.frame_pool=48", "stages.select.batch=8", "stages.select.frame_batch=8"]
    batches = StageData(load_any_recipe(real_file, changes), "select", tmp_path / "run").batches()
    found = {"pairs": batches.pairs, "frames": batches.frames}
    assert all(isinstance(pool, PooledFeatures) for pool in found.values())
    return found


def same(first: Features, second: Features) -> bool:
    return all(torch.equal(value, second.tensors()[name]) for name, value in first.tensors().items())


@pytest.mark.parametrize("kind", ["pairs", "frames"])
def test_a_batch_is_the_same_whatever_was_kept(pools, tmp_path, kind):
    pool = pools[kind]
    expected = [pool[number] for number in (0, 1, 7)]
    files = sorted((tmp_path / "run" / kind).rglob("*.safetensors"))
    assert 2 <= len(files) <= 3
    assert same(pool[7], expected[2])
    files[0].unlink()
    files[1].write_bytes(b"cut off")
    assert all(same(pool[number], found) for number, found in zip((0, 1, 7), expected, strict=True))
    assert {len(value) for value in expected[0].tensors().values()} == {8}


def test_the_pool_grows_by_new_blocks_until_it_is_full(pools, monkeypatch):
    pool, seen = pools["pairs"], []
    one = pool.block(0)
    monkeypatch.setattr(pool, "block", lambda number: (seen.append(number), one)[1])
    for number in range(6):
        pool[number]
        # Two batches of 8 a block of 16; each brings the newest block.
        assert seen[-4] == max(seen) == number // 2
    for number in range(6, 30):
        pool[number]
    assert set(seen) == {0, 1, 2}


def test_a_stage_goes_on_where_the_one_before_it_has_stopped(real_file, tmp_path):
    changes = ["data.pool=320", "stages.select.batch=16", "stages.select.steps=6", "stages.joint.batch=16"]
    recipe = load_any_recipe(real_file, changes)
    select, joint = (StageData(recipe, name, tmp_path).batches().pairs for name in ("select", "joint"))
    assert joint._folder == select._folder
    # Six batches of 16 are three blocks of 32.
    assert (select._first, joint._first) == (0, 3)


def test_a_full_disk_costs_time_only(pools, tmp_path, monkeypatch, caplog):
    pool = pools["pairs"]
    expected = pool[0]
    for file in (tmp_path / "run" / "pairs").rglob("*.safetensors"):
        file.unlink()

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("elysium_core.training.real.feature_pool.save_file", full)
    assert same(pool[0], expected)
    assert caplog.text.count("features cannot be kept") == 1


@pytest.mark.parametrize(
    ("change", "folder"),
    [
        ("data.seed=4", "pairs"),
        ("model.live_px=80", "pairs"),
        ("data.absent_share=0.3", "pairs"),
        ("model.contrast=20", "frames"),
        ("model.words=[plum, lemon]", "frames"),
    ],
)
def test_other_data_have_another_pool(real_file, tmp_path, change, folder):
    def pool_name(*changes):
        return StageData(load_any_recipe(real_file, list(changes)), "select", tmp_path)._pool_name(folder)

    assert pool_name("data.pool=64", "data.held_out_frames=3", "data.frame_pool=64") == pool_name()
    assert pool_name(change) != pool_name()


def test_held_out_photos_that_cannot_be_read_are_told(real_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(PhotoSet, "read", lambda photos, index: None)
    data = StageData(real_recipe, "select", tmp_path)
    views = EncodedFrames(FrameViews(data._photos.part(held_out=True), real_recipe.model.words, 64), data._encoder)
    with pytest.raises(DataError, match="annotated photos can be used"):
        views.photos(4)


def test_pairs_and_frames_keep_their_truth(real_recipe, tmp_path):
    (held,) = RealStageRun(real_recipe, "select", tmp_path).held_out()
    pairs, frames = held.pairs, held.frames
    absent = ~pairs.is_present
    assert len(pairs.live_box) == 12
    assert (pairs.live_box[absent] == 0).all()
    assert (pairs.live_box[pairs.is_present][:, 2:] > pairs.live_box[pairs.is_present][:, :2]).all()
    assert pairs.live_pixels.shape == (12, 64, 64, 3)
    assert frames.pixels.shape == (len(frames.names), 64, 64, 3)
    # One square a photo.
    assert (frames.names >= 0).sum(1).tolist() == [1] * len(frames.names)
    assert frames.is_usable.sum(1).tolist() == [1] * len(frames.names)
