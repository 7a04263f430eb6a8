from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.engine.draft_tree import ROOT, DraftTree, DraftTrie

GUESSES = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=8)


def planted(guesses):
    trie = DraftTrie()
    for guess in guesses:
        trie.add(guess)
    return trie.tree()


def ways(tree):
    """Tokens from the root to each node."""
    found = []
    for token, parent in zip(tree.token_ids, tree.parents, strict=True):
        found.append([*(found[parent] if parent != ROOT else []), token])
    return found


@given(GUESSES)
def test_a_tree_holds_every_opening_of_every_guess_once(guesses):
    expected = {tuple(guess[:end]) for guess in guesses for end in range(1, len(guess) + 1)}
    found = [tuple(way) for way in ways(planted(guesses))]
    assert len(found) == len(expected)
    assert set(found) == expected


@given(GUESSES)
def test_a_token_sees_itself_and_what_stands_before_it(guesses):
    tree = planted(guesses)
    sights, depths = tree.sights(), tree.depths()
    for index, way in enumerate(ways(tree)):
        seen = sights[index].nonzero()[0].tolist()
        assert [tree.token_ids[node] for node in seen] == way
        assert depths[index] == len(way) - 1


@given(GUESSES, st.integers(0, 6))
def test_a_tree_is_cut_at_a_depth(guesses, depth):
    whole = planted(guesses)
    cut = whole.within(depth)
    assert (cut is whole) == (len(cut) == len(whole))
    assert sorted(map(tuple, ways(cut))) == sorted(
        {tuple(guess[:end]) for guess in guesses for end in range(1, min(depth, len(guess)) + 1)}
    )


@given(GUESSES, st.lists(st.integers(0, 3), min_size=7, max_size=7))
def test_the_way_of_a_model_is_its_longest_opening_in_the_tree(guesses, answer):
    tree = planted(guesses)
    # Off its own way the model says what does not matter.
    said = [answer[0], *(answer[len(way)] if way == answer[: len(way)] else 99 for way in ways(tree))]
    followed = [tree.token_ids[node] for node in tree.follow(said)]
    known = [guess[:end] for guess in guesses for end in range(1, len(guess) + 1)]
    longest = max((len(way) for way in known if way == answer[: len(way)]), default=0)
    assert followed == answer[:longest]


def test_a_chain_is_the_simplest_tree():
    chain = DraftTree.chain([7, 8, 9])
    assert chain == planted([[7, 8, 9]])
    assert chain.is_chain
    assert not planted([[7, 8], [9]]).is_chain
    assert len(DraftTree.chain([])) == 0


@pytest.mark.parametrize(("ids", "parents"), [((1, 2), (-1,)), ((1,), (0,)), ((1, 2), (-1, 1)), ((1,), (-2,))])
def test_what_is_no_tree_is_refused(ids, parents):
    with pytest.raises(ValueError, match="drafted token"):
        DraftTree(ids, parents)
