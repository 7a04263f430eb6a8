"""YOLOX-nano's features against its published structure, and the vision encoder that is made of them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from elysium_core.network.detector_encoder import DetectorEncoder, DetectorEncoderConfig
from elysium_core.network.efficientnet import EfficientNetConfig, EfficientNetEncoder
from elysium_core.network.encoders import build_vision_encoder, token_shape
from elysium_core.network.yolox import YoloxFeatures


@pytest.fixture(scope="module")
def encoder(draw_weights):
    torch.manual_seed(0)
    encoder = DetectorEncoder(DetectorEncoderConfig(64)).double().eval()
    draw_weights(encoder)
    return encoder


class Published:
    """YOLOX-nano as its authors describe it, from its convolutions in the order in which they run."""

    def __init__(self, network):
        self._convs = (module for module in network.modules() if isinstance(module, nn.Conv2d))

    def conv(self, x, stride=1, *, plain=False):
        module = next(self._convs)
        weight = module.weight
        groups = x.shape[1] // weight.shape[1]
        y = F.conv2d(x, weight, module.bias, stride, weight.shape[-1] // 2, groups=groups)
        return y if plain else y * y.sigmoid()

    def separable(self, x, stride=1):
        return self.conv(self.conv(x, stride))

    def csp(self, x, blocks, *, shortcut):
        one, two = self.conv(x), self.conv(x)
        for _ in range(blocks):
            y = self.separable(self.conv(one))
            one = one + y if shortcut else y
        return self.conv(torch.cat([one, two], 1))

    def pool(self, x):
        x = self.conv(x)
        return self.conv(torch.cat([x, *(F.max_pool2d(x, side, 1, side // 2) for side in (5, 9, 13))], 1))

    def __call__(self, image):
        top_left, top_right = image[..., ::2, ::2], image[..., ::2, 1::2]
        bottom_left, bottom_right = image[..., 1::2, ::2], image[..., 1::2, 1::2]
        x = self.conv(torch.cat([top_left, bottom_left, top_right, bottom_right], 1))
        x = self.csp(self.separable(x, 2), 1, shortcut=True)
        c3 = self.csp(self.separable(x, 2), 3, shortcut=True)
        c4 = self.csp(self.separable(c3, 2), 3, shortcut=True)
        c5 = self.csp(self.pool(self.separable(c4, 2)), 1, shortcut=False)
        p5 = self.conv(c5)
        p4 = self.conv(self.csp(torch.cat([twice(p5), c4], 1), 1, shortcut=False))
        n3 = self.csp(torch.cat([twice(p4), c3], 1), 1, shortcut=False)
        n4 = self.csp(torch.cat([self.separable(n3, 2), p4], 1), 1, shortcut=False)
        n5 = self.csp(torch.cat([self.separable(n4, 2), p5], 1), 1, shortcut=False)
        levels = []
        for level in (n3, n4, n5):
            x = self.conv(level)
            kind = self.separable(self.separable(x))
            box = self.separable(self.separable(x))
            levels.append((torch.cat([kind, box], 1), self.conv(box, plain=True)))
        return levels


def twice(x):
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


@torch.no_grad()
@pytest.mark.parametrize("side", [64, 96])
def test_features_are_those_of_the_published_network(draw_weights, side):
    torch.manual_seed(1)
    network = YoloxFeatures().double().eval()
    draw_weights(network)
    image = torch.rand(2, 3, side, side, dtype=torch.float64) * 255
    for stride, found, expected in zip((8, 16, 32), network(image), Published(network)(image), strict=True):
        assert found[0].shape == (2, 128, side // stride, side // stride)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)


@torch.no_grad()
def test_a_token_has_the_features_of_three_levels(encoder):
    pixels = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    image = ((pixels * 0.226 + 0.449) * 255).flip(1)
    (fine, fine_score), (middle, score), (coarse, coarse_score) = encoder.detector(image)
    tokens = encoder(pixels).reshape(2, 4, 4, encoder.width)
    for row in range(4):
        for column in range(4):
            token = tokens[1, row, column]
            expected = [middle[1, :, row, column], score[1, :, row, column]]
            torch.testing.assert_close(token[:129], torch.cat(expected))
            part = fine_score[1, 0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            y, x = divmod(int(part.argmax()), 2)
            assert token[129:131].tolist() == [y, x]
            expected = fine[1, :, 2 * row + y, 2 * column + x], fine_score[1, :, 2 * row + y, 2 * column + x]
            torch.testing.assert_close(token[131:260], torch.cat(expected))
            expected = coarse[1, :, row // 2, column // 2], coarse_score[1, :, row // 2, column // 2]
            torch.testing.assert_close(token[260:], torch.cat(expected))


@torch.no_grad()
def test_crops_are_those_of_efficientnet(encoder):
    other = EfficientNetEncoder(EfficientNetConfig(64)).double().eval()
    shared = other.state_dict()
    shared |= {name: value for name, value in encoder.state_dict().items() if name in shared}
    other.load_state_dict(shared)
    crops = torch.randn(2, 3, 48, 48, dtype=torch.float64)
    assert torch.equal(encoder.crop_features(crops), other.crop_features(crops))
    assert len(list(encoder.layers())) == 11


def test_knows_its_sizes(encoder):
    assert (encoder.side_px, encoder.grid, encoder.token_count, encoder.width) == (64, 4, 16, 389)
    config = DetectorEncoderConfig(96, 20.0)
    assert token_shape(config) == (36, 389)
    assert build_vision_encoder(config).settings() == {
        "model_type": "efficientnet_lite0_yolox_nano",
        "image_size": 96,
        "contrast": 20.0,
    }
