"""How near visual tokens lie to the words for names, and what that is worth for a score."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from elysium_core.calibration import NameCalibration, ScoreCalibration
from elysium_core.families.base import Seen
from elysium_core.families.name_evidence import SHARPNESS, name_evidence, name_logits

FOUND, BY_NAME = ScoreCalibration(3.0, 0.5), NameCalibration(2.0, 1.0, 4.0, names=2)


def test_the_nearest_token_counts():
    words = torch.eye(3)
    rows = torch.tensor([[5.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
    both = 1 / math.sqrt(2) * SHARPNESS
    assert name_logits(rows, words).tolist() == [
        pytest.approx([SHARPNESS, 0.0, 0.0], abs=1e-4),
        pytest.approx([0.0, both, both], abs=1e-4),
    ]
    first = -math.log(1 + 2 * math.exp(-SHARPNESS))
    half = -math.log(2 + math.exp(-both))
    assert name_evidence(rows, words).tolist() == pytest.approx([first, half, half], abs=1e-4)


class TestFamily:
    @pytest.fixture
    def family(self, runtime, monkeypatch):
        family = runtime.family
        settings = replace(family.settings, vocabulary=("mug", "dog"), find_scores=FOUND, name_scores=BY_NAME)
        monkeypatch.setattr(family, "settings", settings)
        monkeypatch.setattr(family, "_rows", None)
        return family

    def seen(self, family, name):
        """An image one of whose tokens lies at the word for a name."""
        torch.manual_seed(0)
        last = family.tokenizer.encode_answer(f"the {name}")[-1]
        return Seen(torch.cat([0.01 * torch.randn(3, family.embed([last]).shape[1]), family.embed([last])]))

    def test_a_shown_name_is_believed_more_than_another(self, family):
        one, other = family.settings.vocabulary
        seen = self.seen(family, one)
        rows = family.embed([family.tokenizer.encode_answer(f"the {name}")[-1] for name in (one, other)])
        evidence = name_evidence(seen.rows, rows).tolist()
        assert evidence[0] > evidence[1]
        for name, value in zip((one, other), evidence, strict=True):
            assert family.find_scores(seen, f"the {name}") == BY_NAME.given(value)

    def test_a_name_that_tokens_were_not_drawn_to_is_judged_by_its_score_alone(self, family):
        one, other = family.settings.vocabulary[:2]
        family.settings = replace(family.settings, name_scores=replace(BY_NAME, names=1))
        seen = self.seen(family, one)
        assert family.find_scores(seen, f"the {other}") == FOUND
        assert family.find_scores(seen, f"the {one}") == BY_NAME.given(0.0)  # there is no other name

    def test_without_a_calibration_of_names_scores_are_as_before(self, family):
        family.settings = replace(family.settings, name_scores=None)
        name = family.settings.vocabulary[0]
        assert family.find_scores(self.seen(family, name), f"the {name}") == FOUND
