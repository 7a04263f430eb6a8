"""Draft trees: guessed continuations of an answer as a tree of tokens.

Guesses with a common beginning share the nodes of that beginning. A single guess is a chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

ROOT = -1
"""Parent index of the tokens that directly follow the text written so far."""


@dataclass(frozen=True, slots=True)
class DraftTree:
    """A tree of N drafted tokens. The children of a node have different tokens.

    Attributes:
        token_ids: The N token ids, parents before their children.
        parents: The N parent indices; :data:`ROOT` for tokens without a parent.

    Raises:
        ValueError: The lists differ in length, or a parent does not come before its child.
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
        """A tree of a single guess."""
        return cls(tuple(token_ids), tuple(range(ROOT, len(token_ids) - 1)))

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def is_chain(self) -> bool:
        """Whether every token follows the one before it."""
        return self.parents == tuple(range(ROOT, len(self.parents) - 1))

    def depths(self, first: int = 0) -> list[int]:
        """Depth of each token; tokens without a parent have depth ``first``."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(first if parent == ROOT else depths[parent] + 1)
        return depths

    def within(self, depth: int) -> DraftTree:
        """The part of the tree whose branches are at most ``depth`` tokens long; the tree itself if that is all."""
        depths = self.depths()
        if max(depths, default=ROOT) < depth:
            return self
        kept: dict[int, int] = {ROOT: ROOT}
        for index, before in enumerate(depths):
            if before < depth:
                kept[index] = len(kept) - 1
        chosen = [index for index in kept if index != ROOT]
        return DraftTree(
            tuple(self.token_ids[index] for index in chosen), tuple(kept[self.parents[index]] for index in chosen)
        )

    def sights(self) -> NDArray[np.bool_]:
        """Attention mask (N, N), bool: a token (row) attends to itself and to its ancestors (columns)."""
        seen = np.eye(len(self), dtype=np.bool_)
        for index, parent in enumerate(self.parents):
            if parent != ROOT:
                seen[index] |= seen[parent]
        return seen

    def follow(self, said: Sequence[int]) -> list[int]:
        """The longest path from the root that agrees with the model.

        Args:
            said: N + 1 token ids: the model's prediction after the root, and after each token of the tree.

        Returns:
            Indices of the tokens on that path, from the root on.
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
    """Drafts the answer to one request. Each request has one drafter."""

    def __call__(self, written: Sequence[int], said: Sequence[int] = ()) -> DraftTree | Sequence[int]:
        """Guess the rest of the answer.

        Args:
            written: Token ids written so far.
            said: The model's prediction after each token of the last draft, in the order of the draft. A
                prediction after a rejected token is no part of the answer, but often a better guess than
                the last draft. Empty before the first pass, and if the last draft was cut.

        Returns:
            A tree of guesses, or one guess, each up to and including the end token; may be empty.
        """
        ...


class DraftTrie:
    """A draft tree under construction: guesses with a common beginning share its nodes."""

    def __init__(self) -> None:
        self._token_ids: list[int] = []
        self._parents: list[int] = []
        self._children: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self._token_ids)

    def child(self, node: int, token: int) -> int | None:
        """The child of a node (or of :data:`ROOT`) that has this token; None if there is none."""
        return self._children.get((node, token))

    def shared(self, token_ids: Sequence[int]) -> list[int]:
        """Nodes of the longest beginning of a guess that is already in the tree."""
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
        """The tree of all guesses added so far."""
        return DraftTree(tuple(self._token_ids), tuple(self._parents))
