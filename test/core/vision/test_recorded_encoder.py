from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from elysium_core.vision.torch_vision import RecordedEncoder, TorchVision
from elysium_core.vision.vision_choice import build_vision


@pytest.fixture
def images():
    return list(np.random.default_rng(4).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8))


def test_recorded_images_give_the_same_tokens_and_keep_them(network, images, record):
    plain, recorded = TorchVision(network), TorchVision(network, record=record)
    expected = [plain.encode([image])[0] for image in images]
    found = [recorded.encode([image])[0] for image in images]
    assert all(mine.equal(wanted) for mine, wanted in zip(found, expected, strict=True)), "none is written over"
    assert (record.made, record.run) == (1, len(images) - 1)


def test_several_images_at_once_are_not_recorded(network, images, record):
    recorded = TorchVision(network, record=record)
    for _ in range(3):
        assert torch.allclose(recorded.encode(images), TorchVision(network).encode(images))
    assert record.made == 0


def test_weights_that_have_moved_are_recorded_anew(network, images, record):
    recorded = TorchVision(network, record=record)
    for dtype in (torch.float32, torch.float64):
        network.to(dtype)
        for image in images[:3]:
            assert recorded.encode([image]).equal(TorchVision(network).encode([image]))
    assert record.made == 2


def test_when_recording_fails_it_is_said_once(network, images, caplog):
    def fail(program):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    recorded = TorchVision(network, record=fail)
    expected = [TorchVision(network).encode([image]) for image in images]
    assert all(recorded.encode([image]).equal(wanted) for image, wanted in zip(images, expected, strict=True))
    assert [record.message for record in caplog.records] == [
        "the vision encoder runs without CUDA graphs and slower: operation not permitted when stream is capturing"
    ]


class Devices(TorchDispatchMode):
    """Notes the devices of all tensors that operations are given."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen |= {leaf.device.type for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        return function(*args, **(kwargs or {}))


def test_what_is_recorded_touches_nothing_outside_of_the_device(network, record):
    network.to("meta")
    encoder = RecordedEncoder(network, record)
    side = network.visual_encoder.side_px
    images = torch.empty(1, side, side, 3, dtype=torch.uint8, device="meta")
    encoder(images)
    with Devices() as devices, torch.inference_mode():
        encoder._run()
    assert devices.seen == {"meta"}, "a copy from the CPU cannot be recorded"


def test_a_cpu_has_no_recording(network):
    assert build_vision("torch", network, cuda_graphs=True)._encode._record is None


@pytest.mark.gpu
def test_a_gpu_replays_the_vision_half(network, images):
    network.to("cuda:0")
    expected = [TorchVision(network).encode([image]) for image in images]
    recorded = build_vision("torch", network, cuda_graphs=True)
    found = [recorded.encode([image]) for image in images]
    for mine, wanted in zip(found, expected, strict=True):
        assert torch.allclose(mine, wanted, atol=1e-3)
    assert isinstance(recorded._encode, RecordedEncoder)
    assert recorded._encode._program is not None
