from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from elysium_core.network.efficientnet import EfficientNetConfig, EfficientNetEncoder
from elysium_core.training.real.crop_depths import deep_blocks, deep_features, shallow_features
from elysium_core.training.real.pair_features import PairFeatures, PooledPairs
from elysium_core.training.real.real_run import RealStageRun
from elysium_core.training.recipes import load_any_recipe


@torch.no_grad()
@pytest.mark.parametrize("side", [32, 64, 128])
def test_both_halves_are_the_encoder(draw_weights, side):
    torch.manual_seed(0)
    encoder = EfficientNetEncoder(EfficientNetConfig(64)).eval()
    draw_weights(encoder)
    pixels = torch.randn(2, 3, side, side)
    shallow = shallow_features(encoder, pixels)
    assert shallow.shape == (2, 24, side // 4, side // 4)
    assert torch.equal(deep_features(encoder, shallow), encoder.crop_features(pixels))


def test_the_deep_half_is_what_crops_need_and_no_more():
    encoder = EfficientNetEncoder(EfficientNetConfig(64))
    deep_features(encoder, torch.randn(1, 24, 8, 8)).sum().backward()
    used = {name for name, weight in encoder.named_parameters() if weight.grad is not None}
    deep = {id(weight) for weight in deep_blocks(encoder).parameters()}
    assert used == {name for name, weight in encoder.named_parameters() if id(weight) in deep}


@pytest.fixture
def pool(real_file, tmp_path) -> PooledPairs:
    recipe = load_any_recipe(real_file, ["data.pool=96", "stages.select.batch=16"])
    batches = RealStageRun(recipe, "select", tmp_path / "run").batches
    assert isinstance(batches, PooledPairs)
    return batches


def same(first: PairFeatures, second: PairFeatures) -> bool:
    return all(torch.equal(value, second.tensors()[name]) for name, value in first.tensors().items())


def test_a_batch_is_the_same_whatever_was_kept(pool, tmp_path):
    expected = [pool[number] for number in (0, 1, 7)]
    files = sorted((tmp_path / "run" / "pairs").rglob("*.safetensors"))
    assert 2 <= len(files) <= 3
    assert same(pool[7], expected[2])
    files[0].unlink()
    files[1].write_bytes(b"cut off")
    assert all(same(pool[number], found) for number, found in zip((0, 1, 7), expected, strict=True))
    assert len(expected[0].live_box) == 16


def test_a_full_disk_costs_time_only(pool, tmp_path, monkeypatch, caplog):
    expected = pool[0]
    for file in (tmp_path / "run" / "pairs").rglob("*.safetensors"):
        file.unlink()

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("elysium_core.training.real.pair_features.save_file", full)
    assert same(pool[0], expected)
    assert caplog.text.count("pairs cannot be kept") == 1


def test_pairs_keep_their_truth(real_recipe, tmp_path):
    (held,) = RealStageRun(real_recipe, "select", tmp_path).held_out()
    absent = ~held.is_present
    assert len(held.live_box) == 12
    assert (held.live_box[absent] == 0).all()
    assert (held.live_box[held.is_present][:, 2:] > held.live_box[held.is_present][:, :2]).all()
    assert held.live_pixels.shape == (12, 64, 64, 3)
    assert not replace(held, live_pixels=None).rows(torch.tensor([1])).tensors().keys() & {"live_pixels"}
