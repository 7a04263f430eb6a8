"""Computed figures: sizes that are known, and what must grow with what."""

from __future__ import annotations

import pytest

from bench.qwen_estimate import MACHINES, SIZES, estimate


@pytest.mark.parametrize(
    ("size", "billions", "kv_kib"), list(zip(SIZES, (2.1, 4.4, 8.8, 3.7, 8.3), (112, 144, 144, 36, 56), strict=True))
)
def test_sizes_are_those_of_the_models(size, billions, kv_kib):
    assert size.weights / 1e9 == pytest.approx(billions, rel=0.05)
    assert size.kv_bytes == kv_kib << 10


@pytest.mark.parametrize("machine", MACHINES)
def test_fewer_tokens_and_objects_are_faster_and_drafts_pay(machine):
    few, many, crowd = (
        estimate(SIZES[0], machine, tokens, objects) for tokens, objects in ((117, 2), (300, 2), (300, 8))
    )
    assert few.frames_per_second > many.frames_per_second > crowd.frames_per_second > 2 * crowd.plain_frames_per_second
    assert few.memory_gb < crowd.memory_gb
