"""Rows of names that were trained on frames alone must not be heard where boxes of followed objects are written."""

from __future__ import annotations

import torch

from elysium_core.training.real.grown_weights import KnownNames
from elysium_core.training.real.real_run import RealStageRun
from elysium_core.training.real.rows_apart import kept_apart, leave_following_alone, states_of_following


def test_rows_act_as_the_reference_on_what_they_are_kept_from_and_are_else_what_they_were():
    torch.manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(40, 40, dtype=torch.float64))
    states = torch.randn(300, 12, dtype=torch.float64) @ basis[:, :12].T
    rows, reference = torch.randn(5, 40, dtype=torch.float64), torch.randn(5, 40, dtype=torch.float64)
    apart = kept_apart(rows, reference, states)
    torch.testing.assert_close(apart @ states.T, reference @ states.T)
    torch.testing.assert_close(apart @ basis[:, 12:], rows @ basis[:, 12:])


def test_new_rows_are_hardly_heard_where_boxes_are_written(real_recipe, tmp_path):
    run = RealStageRun(real_recipe, "joint", tmp_path)
    model, pairs = run.model.eval(), run.held_out()[0].pairs
    embedding = model.network.llm.model.embed_tokens.weight
    known = KnownNames(("cherry", "lemon"), model.tokenizer)
    before = embedding.detach()[:-2].clone()
    # A name that was known, and two that are new.
    changed = torch.tensor([known.name_ids()[0], len(embedding) - 2, len(embedding) - 1])
    model.new_rows = changed
    with torch.no_grad():
        embedding[changed] += 3 * torch.randn(3, embedding.shape[1], generator=torch.Generator().manual_seed(1))
    trained = embedding.detach().clone()
    states = states_of_following(model, pairs)
    leave_following_alone(model, pairs, known, before)
    after = embedding.detach()
    others = torch.ones(len(after), dtype=torch.bool)
    others[changed] = False
    assert torch.equal(after[others], trained[others])
    mean = before[known.name_ids()].mean(0)
    wanted = torch.stack([before[changed[0]], mean, mean]) @ states.T
    far, near = (float((rows[changed] @ states.T - wanted).norm()) for rows in (trained, after))
    assert near < 0.4 * far
    assert float((after[changed] - trained[changed]).norm()) > 0


def test_without_new_rows_nothing_changes(real_recipe, tmp_path):
    run = RealStageRun(real_recipe, "joint", tmp_path)
    embedding = run.model.network.llm.model.embed_tokens.weight
    first = embedding.detach().clone()
    names = KnownNames(("cherry",), run.model.tokenizer)
    leave_following_alone(run.model.eval(), run.held_out()[0].pairs, names, first)
    assert torch.equal(embedding, first)
