from __future__ import annotations

import pytest
import torch

from elysium_core.runtime import Runtime


@pytest.mark.parametrize(
    ("device", "asked", "tokens"), [("cpu", -1, 0), ("cuda", -1, 32), ("cpu", 9, 9), ("cuda", 0, 0)]
)
def test_trees_grow_where_they_pay_or_are_asked_for(tracker, monkeypatch, device, asked, tokens):
    follower = tracker(draft_tokens=asked)
    monkeypatch.setattr(Runtime, "device", torch.device(device))
    assert follower._tree_budget().tokens == tokens
