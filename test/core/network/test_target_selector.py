"""The selector for crops against its equations, written cell by cell."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from elysium_core.network.crop_config import CropConfig
from elysium_core.network.target_selector import AnchorTokens, TargetSelector, box_cover

WIDTH = 10
CONFIG = CropConfig(live_px=64, anchor_px=32, live_tokens=7, anchor_tokens=5, neck=12, match=6, trunk=8, num_features=9)
BOXES = torch.tensor([[0.2, 0.1, 0.9, 0.8], [0.45, 0.4, 0.55, 0.48], [0.0, 0.0, 1.0, 1.0], [0.3, 0.6, 0.7, 1.0]])


@pytest.fixture(scope="module")
def selector(draw_weights):
    torch.manual_seed(0)
    selector = TargetSelector(CONFIG, WIDTH).eval()
    draw_weights(selector)
    return selector


@pytest.fixture(scope="module")
def features():
    random = torch.Generator().manual_seed(1)
    return torch.randn(4, WIDTH, 4, 4, generator=random), torch.randn(4, WIDTH, 8, 8, generator=random)


def norm_conv(weights, name, x, kernel=3):
    y = F.conv2d(x, weights[f"{name}.conv.weight"], padding=kernel // 2)
    statistics = (weights[f"{name}.norm.running_{kind}"] for kind in ("mean", "var"))
    return F.batch_norm(y, *statistics, weights[f"{name}.norm.weight"], weights[f"{name}.norm.bias"])


def covered_share(box, row, column, cells):
    x1, y1, x2, y2 = box.tolist()
    across = min(x2, (column + 1) / cells) - max(x1, column / cells)
    down = min(y2, (row + 1) / cells) - max(y1, row / cells)
    return max(across, 0.0) * max(down, 0.0) * cells * cells


def slow(weights, anchor, live, box):
    """One pair of crops: kept anchor tokens, kept live tokens, their indices, gate logits, sides."""
    neck_a, neck_l = (norm_conv(weights, "neck", x[None], 1).relu() for x in (anchor, live))
    query, key = (
        F.conv2d(neck, weights[f"{name}.weight"], weights[f"{name}.bias"])[0].flatten(1)
        for name, neck in (("query", neck_a), ("key", neck_l))
    )
    cover = [covered_share(box, row, column, 4) for row in range(4) for column in range(4)]
    pooled = sum(share * query[:, cell] for cell, share in enumerate(cover)) / max(sum(cover), 0.5)
    rows = []
    for cell in range(64):
        cosines = [4 * F.cosine_similarity(query[:, other], key[:, cell], dim=0) for other in range(16)]
        inside = max(c + 2 * math.log(max(share, 1e-3)) for c, share in zip(cosines, cover, strict=True))
        outside = max(c + 2 * math.log(max(1 - share, 1e-3)) for c, share in zip(cosines, cover, strict=True))
        size = [box[2] - box[0], box[3] - box[1]]
        rows.append(torch.tensor([*cosines, *key[:, cell], *(key[:, cell] * pooled), inside, outside, *size]))
    x = norm_conv(weights, "enter", torch.stack(rows, 1).reshape(1, -1, 8, 8), 1).relu()
    x = norm_conv(weights, "trunk.0", x).relu()
    second = norm_conv(weights, "trunk.1.second", norm_conv(weights, "trunk.1.first", x).relu())
    x = norm_conv(weights, "trunk.2", (x + second).relu()).relu()
    every = x[0].flatten(1).T @ weights["live_token.weight"].T + weights["live_token.bias"] + weights["live_place"]
    gate = (every @ weights["gate.weight"].T + weights["gate.bias"])[:, 0]
    sides = F.softplus(F.conv2d(x, weights["sides.weight"], weights["sides.bias"]))[0].flatten(1).T / 8
    kept = sorted(sorted(range(64), key=lambda cell: -float(gate[cell]))[:7])
    told = torch.cat([neck_a[0].flatten(1).T, torch.tensor(cover)[:, None]], 1)
    anchors = told @ weights["anchor_token.weight"].T + weights["anchor_token.bias"] + weights["anchor_place"]
    return anchors, every[kept], kept, gate, sides


@torch.no_grad()
def test_keeps_what_its_equations_say(selector, features):
    weights, (anchor, live) = selector.state_dict(), features
    anchors = selector.anchor(anchor, BOXES)
    found = selector.live(live, anchors)
    for row in range(4):
        every_anchor, kept, index, gate, sides = slow(weights, anchor[row], live[row], BOXES[row])
        assert found.index[row].tolist() == index
        torch.testing.assert_close(found.tokens[row], kept, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.gate[row], gate, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.sides[row], sides, rtol=1e-4, atol=1e-4)
        for token in anchors.tokens[row]:
            assert (every_anchor - token).abs().amax(-1).min() < 1e-4


@torch.no_grad()
def test_anchor_tokens_are_those_that_the_box_covers(selector, features):
    weights, anchor = selector.state_dict(), features[0]
    anchors = selector.anchor(anchor, BOXES)
    every = slow(weights, anchor[1], features[1][1], BOXES[1])[0]
    places = [int((every - token).abs().amax(-1).argmin()) for token in anchors.tokens[1]]
    assert places == sorted(places)
    # A small box covers parts of the middle cells 5, 6, 9 and 10 only: these are kept, and of the others the nearest.
    covered = {cell for cell in range(16) if covered_share(BOXES[1], cell // 4, cell % 4, 4) > 0}
    assert covered <= set(places)
    assert len(covered) < len(places) == 5


@torch.no_grad()
def test_crops_in_a_batch_are_crops_one_by_one(selector, features):
    anchor, live = features
    together = selector.live(live, selector.anchor(anchor, BOXES))
    for row in range(4):
        alone = selector.anchor(anchor[row : row + 1], BOXES[row : row + 1])
        found = selector.live(live[row : row + 1], alone)
        assert torch.equal(found.index[0], together.index[row])
        torch.testing.assert_close(found.tokens[0], together.tokens[row], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_what_is_kept_depends_on_the_anchor(selector, features):
    anchor, live = features
    anchors = selector.anchor(anchor, BOXES)
    one_crop = live[:1].expand(4, -1, -1, -1)
    kept = {tuple(row) for row in selector.live(one_crop, anchors).index.tolist()}
    assert len(kept) > 1


@torch.no_grad()
def test_anchors_can_be_taken_apart_and_joined(selector, features):
    anchor, live = features
    anchors = selector.anchor(anchor, BOXES)
    assert len(anchors) == 4
    again = AnchorTokens.stack([anchors[2:3], anchors[0:2], anchors[3:]])
    order = [2, 0, 1, 3]
    for part, whole in zip(again.parts(), anchors.parts(), strict=True):
        assert torch.equal(part, whole[order])
    expected = selector.live(live[order], again)
    assert torch.equal(expected.index, selector.live(live, anchors).index[order])


@torch.no_grad()
def test_an_anchor_of_the_default_size_is_small():
    selector = TargetSelector(CropConfig(), 152).eval()
    anchors = selector.anchor(torch.randn(1, 152, 8, 8), BOXES[:1])
    assert sum(part.nbytes for part in anchors.parts()) < 32_000
    live = selector.live(torch.randn(1, 152, 16, 16), anchors)
    assert (anchors.tokens.shape, live.tokens.shape) == ((1, 16, 128), (1, 32, 128))
    assert (live.gate.shape, live.sides.shape, live.every.shape) == ((1, 256), (1, 256, 4), (1, 256, 128))


@torch.no_grad()
def test_boxes_lie_around_their_cells_and_inside_the_crop(selector):
    sides = torch.full((1, 64, 4), 0.125)
    boxes = selector.boxes(sides)[0]
    assert boxes[0].tolist() == [0.0, 0.0, 0.1875, 0.1875]
    assert boxes[9].tolist() == pytest.approx([0.0625, 0.0625, 0.3125, 0.3125])
    assert boxes.min() >= 0
    assert boxes.max() <= 1


def test_one_pass_gives_gradients_to_every_weight(features):
    torch.manual_seed(0)
    selector = TargetSelector(CONFIG, WIDTH).train()
    anchors = selector.anchor(features[0], BOXES)
    live = selector.live(features[1], anchors)
    loss = anchors.tokens.square().sum() + live.tokens.square().sum() + live.gate.sum() + live.sides.sum()
    loss.backward()
    lacking = [name for name, weight in selector.named_parameters() if weight.grad is None or not weight.grad.any()]
    # A batch norm takes the mean away, so what is added to all cells alike has no effect: none of these is such a bias.
    assert lacking == []


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_gives_close_scores(selector, features, dtype):
    half = TargetSelector(CONFIG, WIDTH).eval()
    half.load_state_dict(selector.state_dict())
    half.to(dtype)
    anchor, live = (part.to(dtype) for part in features)
    found = half.live(live, half.anchor(anchor, BOXES))
    expected = selector.live(features[1], selector.anchor(features[0], BOXES))
    assert found.tokens.dtype == dtype
    assert (found.gate.float() - expected.gate).abs().max() < 0.1 * expected.gate.abs().max()


def test_cover_is_the_share_of_each_cell():
    cover = box_cover(torch.tensor([[0.125, 0.0, 0.5, 0.25], [0.0, 0.0, 1.0, 1.0], [0.5, 0.5, 0.5, 0.9]]), 4)
    assert cover[0].reshape(4, 4).tolist() == [[0.5, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert cover[1].tolist() == [1.0] * 16
    assert cover[2].sum() == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"live_px": 100}, r"live_px = 100 is not a multiple of 16 in 16..512 px"),
        ({"anchor_px": 0}, r"anchor_px = 0 is not a multiple of 16"),
        ({"live_px": 1024}, r"live_px = 1024 is not"),
        ({"live_tokens": 257}, r"live_tokens = 257 is not in 1..256, the cells of such a crop"),
        ({"anchor_tokens": 0}, r"anchor_tokens = 0 is not in 1..64"),
        ({"neck": 0}, r"neck = 0 is not in 1..4096"),
        ({"num_features": 1 << 20}, r"num_features = 1048576 is not in 1..4096"),
        ({"live_tokens": "32"}, r"live_tokens = '32' is not a whole number"),
        ({"trunk": True}, r"trunk = True is not a whole number"),
        ({"tokens": 3}, r"'tokens' is not one of live_px, anchor_px, live_tokens"),
    ],
)
def test_settings_out_of_range_are_refused(change, said):
    with pytest.raises(ValueError, match=said):
        CropConfig.from_dict(change)


def test_settings_that_are_left_out_have_their_defaults():
    assert CropConfig.from_dict({"live_tokens": 40}) == CropConfig(live_tokens=40)
    assert CropConfig.from_dict(CONFIG.to_dict()) == CONFIG
    with pytest.raises(ValueError, match="it is list, not an object"):
        CropConfig.from_dict([])
