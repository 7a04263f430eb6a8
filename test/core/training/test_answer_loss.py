"""The loss on answers and its measures, the same for both trainings, and means over batches of any size."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.training.losses import Mean, add_up, answer_losses, batch_mean, decayed, losses_of_rows, means

VOCABULARY = 7


def answers(seed: int, digits: list[bool], weights: list[float] | None = None):
    """Random logits and labels of as many answer tokens."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(digits), VOCABULARY, generator=generator)
    labels = torch.randint(0, VOCABULARY, (len(digits),), generator=generator)
    return logits, labels, torch.tensor(weights or [1.0] * len(digits)), torch.tensor(digits)


def joined(*batches) -> tuple[torch.Tensor, ...]:
    return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))


class TestAnswers:
    def test_every_token_counts_by_its_weight(self):
        logits, labels, weights, digits = answers(0, [True, False, False], [1.0, 0.1, 0.5])
        losses = F.cross_entropy(logits, labels, reduction="none")
        found = answer_losses(logits, labels, weights, digits)
        assert found["answer"].value == pytest.approx(float((losses * weights).sum() / 1.6))
        assert found["digit_loss"].value == pytest.approx(float(losses[0]))
        assert found["text_loss"].value == pytest.approx(float((0.1 * losses[1] + 0.5 * losses[2]) / 0.6))

    def test_digits_alone_count_for_their_accuracy(self):
        logits = 9 * F.one_hot(torch.tensor([1, 2, 3, 4]), VOCABULARY).float()
        labels, digits = torch.tensor([1, 2, 0, 0]), torch.tensor([True, False, True, False])
        found = answer_losses(logits, labels, torch.ones(4), digits)["digit_accuracy"]
        assert (found.value, found.weight) == (0.5, 2)

    def test_the_answer_is_learnt_and_nothing_else(self):
        logits, *others = answers(1, [True, False])
        found = answer_losses(logits.requires_grad_(), *others)
        assert [name for name, mean in found.items() if mean.total.requires_grad] == ["answer"]

    @given(st.lists(st.lists(st.booleans(), min_size=1, max_size=5), min_size=1, max_size=5))
    def test_how_answers_are_divided_into_batches_changes_no_mean(self, divided):
        parts = [answers(number, digits) for number, digits in enumerate(divided)]
        whole = means(add_up([answer_losses(*joined(*parts))]))
        assert means(add_up([answer_losses(*part) for part in parts])) == pytest.approx(whole, rel=1e-5)

    def test_a_batch_without_digits_has_no_digit_loss(self):
        found = means(add_up([answer_losses(*answers(0, [False, False]))]))
        assert sorted(found) == ["answer", "text_loss"]


class TestRows:
    def test_the_labels_are_the_answer_tokens_behind_their_logits(self, builder, model):
        batch = builder.draw(3, 6, 1)
        llm = model.network.llm
        visual = torch.randn(len(batch.images), 6, llm.size.width)
        found, (hidden,) = losses_of_rows(llm, batch, visual, (2,))
        labelled = batch.label_weight[:, 1:] > 0
        assert found["answer"].weight == pytest.approx(float(batch.label_weight.sum()))
        assert found["digit_loss"].weight == batch.is_digit.sum()
        assert int(labelled.sum()) == int((batch.label_weight > 0).sum())
        assert hidden.shape == (*batch.token_ids.shape, llm.size.width)


class TestMeans:
    def test_a_value_of_a_batch_counts_once(self):
        sums = add_up([{"total": batch_mean(torch.tensor(value))} for value in (1.0, 4.0)])
        assert means(sums) == {"total": 2.5}

    def test_running_means_forget_by_batch_and_count_by_token(self):
        few, many = {"a": (1.0, 1.0)}, {"a": (0.0, 99.0)}
        assert means(decayed(few, many, 0.5)) == {"a": pytest.approx(0.01)}

    def test_what_was_not_measured_changes_no_running_mean(self):
        before = {"a": (3.0, 4.0)}
        assert means(decayed(before, {"a": (0.0, 0.0)}, 0.95)) == {"a": pytest.approx(0.75)}

    def test_what_is_new_begins_as_it_is(self):
        assert decayed({}, {"a": (3.0, 4.0)}, 0.95) == {"a": (pytest.approx(3.0), pytest.approx(4.0))}

    def test_nothing_measured_is_left_out(self):
        assert means(add_up([{"a": Mean(torch.zeros(()), torch.zeros(()))}])) == {}
        assert add_up([]) == {}
