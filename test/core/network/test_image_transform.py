"""From a frame to the encoder's input."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.network.image_transform import ImageTransform, resize_on_device

MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
STD = np.array([0.26862954, 0.26130258, 0.27577711])


@given(height=st.integers(1, 40), width=st.integers(1, 40), value=st.integers(0, 255))
def test_a_plain_picture_of_any_size_becomes_plain(height, width, value):
    pixels = ImageTransform(16)([np.full((height, width, 3), value, np.uint8)])
    assert pixels.shape == (1, 3, 16, 16)
    assert pixels.dtype == torch.float32
    expected = ((value / 255 - MEAN) / STD).reshape(1, 3, 1, 1)
    np.testing.assert_allclose(pixels.numpy(), np.broadcast_to(expected, pixels.shape), atol=1e-5)


def test_a_picture_of_the_right_size_is_not_touched():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    np.testing.assert_array_equal(ImageTransform(16).resize(image), image)


def test_shrinking_averages_over_the_area():
    """A fine checkerboard becomes gray; without antialiasing it would stay black and white."""
    board = np.indices((128, 128)).sum(0) % 2 * 255
    small = ImageTransform(16).resize(np.repeat(board[..., None], 3, axis=2).astype(np.uint8))
    assert small.min() >= 120
    assert small.max() <= 135


def test_nothing_is_cropped_or_padded():
    image = np.zeros((40, 200, 3), np.uint8)
    image[:, :10], image[:, -10:] = 255, 255
    small = ImageTransform(20).resize(image)
    assert small[:, 0].min() > 200
    assert small[:, -1].min() > 200
    assert small[:, 5:-5].max() == 0


def test_frames_of_different_sizes_and_layouts_in_memory():
    images = [np.zeros((30, 20, 3), np.uint8), np.full((20, 60, 3), 9, np.uint8)[:, ::2], np.zeros((8, 9, 3), np.uint8)]
    assert ImageTransform(16)(images).shape == (3, 3, 16, 16)


def test_channels_keep_their_order():
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 255
    pixels = ImageTransform(16)([red])[0].mean((1, 2))
    assert pixels.argmax() == 0


@pytest.mark.parametrize(
    ("size", "kind", "share"),
    [
        ((480, 640), "picture", 0.01),
        ((480, 640), "noise", 0.01),
        ((1080, 1920), "picture", 0.001),
        ((1080, 1920), "noise", 0.005),
        ((337, 335), "noise", 0.3),
        ((100, 60), "noise", 0.02),
    ],
)
def test_resizing_on_the_device_is_pils_to_one_step_in_a_few_places(size, kind, share):
    noise = np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = noise if kind == "noise" else cv2.GaussianBlur(noise, (0, 0), 8) // 2 + 60
    expected = ImageTransform(336).resize(image).astype(int)
    found = resize_on_device(torch.from_numpy(image), 336).numpy().astype(int)
    difference = np.abs(found - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < share


def test_resizing_on_the_device_leaves_the_right_size_alone():
    image = torch.arange(48, dtype=torch.uint8).view(4, 4, 3)
    assert resize_on_device(image, 4) is image
