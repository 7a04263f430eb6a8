from __future__ import annotations


def test_the_group_lists_its_verbs(elysium):
    outcome = elysium("bench")
    assert outcome.code == 0
    assert "node" in outcome.out
