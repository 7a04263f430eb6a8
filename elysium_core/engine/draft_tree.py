"""Guessed continuations of an answer, as a tree of tokens.

Guesses that open alike share their opening. A chain, one guess alone, is the simplest
tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

ROOT = -1
"""The parent of tokens that follow immediately what has been written."""


@dataclass(frozen=True, slots=True)
class DraftTree:
    """A tree of guessed tokens; siblings differ.

    Attributes:
        token_ids: N tokens, parents before their children.
        parents: Index of the token before each; :data:`ROOT` where there is none.

    Raises:
        ValueError: The two differ in length, or a parent does not come first.
    """

    token_ids: tuple[int, ...]
    parents: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.token_ids) != len(self.parents):
            raise ValueError(f"{len(self.token_ids)} drafted tokens have {len(self.parents)} parents")
        for index, parent in enumerate(self.parents):
            if not ROOT <= parent < index:
                raise ValueError("a drafted token comes before its parent")

    @classmethod
    def chain(cls, token_ids: Sequence[int]) -> DraftTree:
        """One guess."""
        return cls(tuple(token_ids), tuple(range(ROOT, len(token_ids) - 1)))

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def is_chain(self) -> bool:
        """Whether every token follows the one before it."""
        return self.parents == tuple(range(ROOT, len(self.parents) - 1))

    def depths(self, first: int = 0) -> list[int]:
        """How many tokens stand before each; ``first`` for the first of a guess."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(first if parent == ROOT else depths[parent] + 1)
        return depths

    def within(self, depth: int) -> DraftTree:
        """The tokens that have fewer than ``depth`` others before them."""
        if len(self) <= depth:
            return self
        kept: dict[int, int] = {ROOT: ROOT}
        for index, before in enumerate(self.depths()):
            if before < depth:
                kept[index] = len(kept) - 1
        chosen = [index for index in kept if index != ROOT]
        return DraftTree(
            tuple(self.token_ids[index] for index in chosen), tuple(kept[self.parents[index]] for index in chosen)
        )

    def sights(self) -> NDArray[np.bool_]:
        """(N, N), whether a token (row) may look at another (column): at itself and at what stands before it."""
        seen = np.eye(len(self), dtype=np.bool_)
        for index, parent in enumerate(self.parents):
            if parent != ROOT:
                seen[index] |= seen[parent]
        return seen

    def follow(self, said: Sequence[int]) -> list[int]:
        """The way through the tree that a model confirms.

        Args:
            said: N + 1 tokens: what the model writes behind the root, and behind each token.

        Returns:
            Indices of the tokens that the model writes itself, from the root on.
        """
        nodes = zip(self.parents, self.token_ids, strict=True)
        children = {node: index for index, node in enumerate(nodes)}
        way: list[int] = []
        at = children.get((ROOT, said[0]))
        while at is not None:
            way.append(at)
            at = children.get((at, said[at + 1]))
        return way


class Drafter(Protocol):
    """Guesses the answer to one request; lives as long as the request."""

    def __call__(self, written: Sequence[int], said: Sequence[int] = ()) -> DraftTree | Sequence[int]:
        """Guess what follows.

        Args:
            written: Token ids written so far.
            said: What the model says behind each token of the last draft, in its order. Behind
                a wrong token this is what it would have written next had the token been its
                own: no answer, but often a better guess than the last. Empty before the first
                pass and where not all of the draft was run.

        Returns:
            A tree of guesses, or one guess, each up to the end token; may be empty.
        """
        ...


class DraftTrie:
    """A draft tree while it grows: guesses that open alike share their opening."""

    def __init__(self) -> None:
        self._token_ids: list[int] = []
        self._parents: list[int] = []
        self._children: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self._token_ids)

    def child(self, node: int, token: int) -> int | None:
        """The node behind another (or :data:`ROOT`) that has this token."""
        return self._children.get((node, token))

    def shared(self, token_ids: Sequence[int]) -> list[int]:
        """Nodes of the opening that a guess has in common with the tree."""
        nodes, node = list[int](), ROOT
        for token in token_ids:
            following = self._children.get((node, token))
            if following is None:
                break
            nodes.append(node := following)
        return nodes

    def add(self, token_ids: Sequence[int]) -> None:
        """Add a guess."""
        nodes = self.shared(token_ids)
        node = nodes[-1] if nodes else ROOT
        for token in token_ids[len(nodes) :]:
            self._children[node, token] = len(self._token_ids)
            self._token_ids.append(token)
            self._parents.append(node)
            node = len(self._token_ids) - 1

    def tree(self) -> DraftTree:
        """What has grown so far."""
        return DraftTree(tuple(self._token_ids), tuple(self._parents))
