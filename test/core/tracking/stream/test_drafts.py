from __future__ import annotations

import pytest

from elysium_core.tracking.box_tree import tree_budget


@pytest.mark.parametrize(
    ("device", "asked", "tokens"), [("cpu", -1, 0), ("cuda", -1, 32), ("cpu", 9, 9), ("cuda", 0, 0)]
)
def test_trees_grow_where_they_pay_or_are_asked_for(device, asked, tokens):
    assert tree_budget(device, asked, 1).tokens == tokens
    assert tree_budget(device, asked, 3).tokens == tokens // 3
