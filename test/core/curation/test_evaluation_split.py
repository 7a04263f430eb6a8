from __future__ import annotations

import json
from pathlib import Path

import pytest

from elysium_core.curation.curation_ledger import CurationLedger
from elysium_core.curation.curation_rules import Detection, count_rivals
from elysium_core.curation.evaluation_split import candidates, is_unique
from elysium_core.curation.review_page import ReviewCard, review_page
from elysium_core.geometry import Box


def line(number: int, rivals: list[int], vid: int | None = None) -> dict:
    return {"id": f"{number}", "vid": str(number if vid is None else vid), "metadata": {"rivals": rivals}}


def test_rivals_are_other_boxes_for_the_same_words():
    best = Detection(Box(0.1, 0.1, 0.3, 0.3), 0.9)
    same = Detection(Box(0.1, 0.1, 0.3, 0.28), 0.5)
    other = Detection(Box(0.6, 0.1, 0.8, 0.3), 0.31)
    assert count_rivals([best, same], best) == 0
    assert count_rivals([best, same, other], best) == 1


def test_only_tracks_without_rivals_in_all_places_are_offered():
    assert is_unique(line(0, [0, 0, 0]))
    assert not is_unique(line(0, [0, 1, 0]))
    assert not is_unique({"id": "x", "metadata": {}})


def test_candidates_are_one_a_video_and_do_not_depend_on_the_order():
    videos = [(str(v), [line(10 * v + k, [0, 0, k % 2], v) for k in range(4)]) for v in range(30)]
    chosen = candidates(videos, 10)
    assert len({entry["vid"] for entry in chosen}) == 10
    assert candidates(videos[::-1], 10) == chosen
    assert candidates(videos, 100)[:10] == chosen


def test_words_of_captions_do_not_become_code_of_the_page():
    page = review_page([ReviewCard('"><b>', "</p><script>alert(1)</script>", b"x"), ReviewCard("b", "dog", b"y")])
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert page.count("<article ") == 2


def test_a_person_decides_and_the_split_is_written(curate, elysium, tmp_path):
    assert curate(tmp_path).code == 0
    (told,) = elysium("curate", "split", tmp_path, "--count", 2, "--json").lines
    page = (tmp_path / "review.html").read_text()
    ids = [part.partition('"')[0] for part in page.split('data-id="')[1:]]
    assert len(ids) == told["tracks"] == 3  # half as many again as are needed
    decisions = tmp_path / "decisions.json"
    decisions.write_text(json.dumps({ids[0]: "unique", ids[1]: "not unique"}))
    short = elysium("curate", "split", tmp_path, "--count", 2, "--decisions", decisions, "--json")
    assert (short.code, short.lines[0]["error"]["code"]) == (2, "DATA")
    decisions.write_text(json.dumps({ids[0]: "unique", ids[1]: "not unique", ids[2]: "unique"}))
    (told,) = elysium("curate", "split", tmp_path, "--count", 2, "--decisions", decisions, "--json").lines
    val, train = ([json.loads(row) for row in Path(told[name]).read_text().splitlines()] for name in ("val", "train"))
    assert [row["id"] for row in val] == [ids[0], ids[2]]
    assert {row["vid"] for row in val} & {row["vid"] for row in train} == set()
    assert (len(val), len(train)) == (told["val_lines"], told["train_lines"])


@pytest.mark.parametrize("text", ["no json", "[]", '{"a": "maybe"}'])
def test_decisions_of_another_kind_are_refused(elysium, tmp_path, text):
    CurationLedger(tmp_path, write=True).close()
    (tmp_path / "d.json").write_text(text)
    outcome = elysium("curate", "split", tmp_path, "--decisions", tmp_path / "d.json", "--json")
    assert (outcome.code, outcome.lines[0]["error"]["code"]) == (2, "DATA")
    assert "d.json" in outcome.err
