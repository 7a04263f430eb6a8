"""EfficientNet-Lite0 against its published table of blocks, written with plain convolutions."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from elysium_core.network.efficientnet import EfficientNetConfig, EfficientNetEncoder
from elysium_core.network.image_transform import ImageTransform

# Repeats, kernel, stride of the first, expansion, channels out: the stages of EfficientNet-B0 without their gates.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


@pytest.fixture(scope="module")
def encoder(draw_weights):
    torch.manual_seed(0)
    encoder = EfficientNetEncoder(EfficientNetConfig(64)).eval()
    draw_weights(encoder)
    return encoder


def same_conv(x, weight, bias, stride=1, groups=1):
    """TensorFlow's padding SAME: as many cells as strides fit, the odd pixel behind."""
    kernel = weight.shape[-1]
    total = max((math.ceil(x.shape[-1] / stride) - 1) * stride + kernel - x.shape[-1], 0)
    return F.conv2d(F.pad(x, (total // 2, total - total // 2) * 2), weight, bias, stride, groups=groups)


def every_block(weights, pixels):
    """The output of every block of the table."""

    def conv(x, name, stride=1, groups=1):
        return same_conv(x, weights[f"{name}.weight"], weights[f"{name}.bias"], stride, groups)

    x, number, outputs = F.relu6(conv(pixels, "stem", 2)), 0, []
    for repeats, _, first_stride, expansion, out in STAGES:
        for repeat in range(repeats):
            stride, name, y = first_stride if repeat == 0 else 1, f"blocks.{number}.convs", x
            if expansion > 1:
                y = F.relu6(conv(y, f"{name}.0"))
            y = F.relu6(conv(y, f"{name}.{int(expansion > 1)}", stride, y.shape[1]))
            y = conv(y, f"{name}.{int(expansion > 1) + 1}")
            x = x + y if repeat > 0 else y
            assert x.shape[1] == out
            outputs.append(x)
            number += 1
    return outputs


def doubled(x):
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


@torch.no_grad()
@pytest.mark.parametrize("side", [64, 96])
def test_tokens_of_a_frame_are_those_of_the_table(encoder, side):
    pixels = torch.randn(2, 3, side, side)
    blocks = every_block(encoder.state_dict(), pixels)
    expected = torch.cat([blocks[10], doubled(blocks[15])], 1)
    found = encoder(pixels)
    assert found.shape == (2, (side // 16) ** 2, 432)
    torch.testing.assert_close(found, expected.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("side", [16, 48, 64, 128])
def test_features_of_a_crop_are_those_of_the_table(encoder, side):
    pixels = torch.randn(2, 3, side, side)
    blocks = every_block(encoder.state_dict(), pixels)
    found = encoder.crop_features(pixels)
    assert found.shape == (2, encoder.crop_width, side // 8, side // 8)
    torch.testing.assert_close(found, torch.cat([blocks[4], doubled(blocks[10])], 1), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_crop_does_not_need_the_last_blocks(encoder):
    pixels = torch.randn(1, 3, 64, 64)
    expected = encoder.crop_features(pixels)
    changed = EfficientNetEncoder(EfficientNetConfig(64)).eval()
    changed.load_state_dict(encoder.state_dict())
    for block in changed.blocks[11:]:
        for weight in block.parameters():
            weight.fill_(float("nan"))
    assert torch.equal(changed.crop_features(pixels), expected)


def test_knows_its_sizes(encoder):
    assert (encoder.side_px, encoder.grid, encoder.token_count, encoder.width) == (64, 4, 16, 432)
    assert (encoder.crop_width, encoder.crop_stride_px) == (152, 8)
    assert len(list(encoder.layers())) == 16


@torch.no_grad()
def test_runs_in_the_type_of_its_weights(encoder):
    half = EfficientNetEncoder(EfficientNetConfig(64)).eval()
    half.load_state_dict(encoder.state_dict())
    assert half.bfloat16()(torch.randn(1, 3, 64, 64)).dtype == torch.bfloat16


def normalized(picture, contrast=40.0):
    images = torch.as_tensor(picture, dtype=torch.uint8)[None]
    return ImageTransform(64, EfficientNetEncoder(EfficientNetConfig(64, contrast)).normalization).normalize(images)


def test_pixels_are_centred_and_scaled():
    picture = torch.randint(0, 256, (64, 64, 3), generator=torch.Generator().manual_seed(0))
    expected = (picture.permute(2, 0, 1)[None] / 255 - 0.449) / 0.226
    torch.testing.assert_close(normalized(picture), expected)


def test_a_dark_picture_becomes_as_clear_as_others():
    random = torch.Generator().manual_seed(1)
    dark = torch.randint(0, 12, (64, 64, 3), generator=random)
    seen = (normalized(dark) * 0.226 + 0.449) * 255
    assert float(dark.float().std()) < 5
    assert 35 < float(seen.std()) < 45
    assert 90 < float(seen.mean()) < 130
    plain = (normalized(dark, contrast=0) * 0.226 + 0.449) * 255
    assert torch.allclose(plain[0], dark.permute(2, 0, 1).float(), atol=1e-3)


def test_noise_of_a_flat_picture_is_not_blown_up_without_end():
    flat = torch.full((64, 64, 3), 3)
    flat[::2] = 4
    seen = (normalized(flat) * 0.226 + 0.449) * 255
    assert float(seen.std()) < 16


def test_each_picture_is_stretched_by_itself():
    random = torch.Generator().manual_seed(2)
    pictures = torch.randint(0, 20, (3, 64, 64, 3), generator=random, dtype=torch.uint8)
    pictures[1] *= 10
    transform = ImageTransform(64, EfficientNetEncoder(EfficientNetConfig(64)).normalization)
    alone = torch.cat([transform.normalize(picture[None]) for picture in pictures])
    assert torch.allclose(transform.normalize(pictures), alone, atol=1e-5)


@pytest.mark.parametrize("side", [0, 16, 100, 4096])
def test_a_side_that_does_not_fit_is_refused(side):
    with pytest.raises(ValueError, match=rf"image_size = {side} is not a multiple of 32 in 32..2048 px"):
        EfficientNetConfig(side)


@pytest.mark.parametrize("contrast", [-1, 128, float("nan")])
def test_a_contrast_that_cannot_be_is_refused(contrast):
    with pytest.raises(ValueError, match=r"contrast = .* is not in 0..127"):
        EfficientNetConfig(64, contrast)
