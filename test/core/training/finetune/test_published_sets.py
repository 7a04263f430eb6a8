"""Readers of the published training sets, each on a small file of the published form and on wrong ones."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from elysium_core.data.readers.annotated_media import JsonItems
from elysium_core.errors import DataError
from elysium_core.prompt.questions import TRAINING
from elysium_core.training.finetune.finetune_recipe import PUBLISHED_SETS, FineTuneStage, SourceConfig
from elysium_core.training.finetune.samples import ask
from elysium_core.training.finetune.sources import open_source
from elysium_core.training.finetune.trial import try_sources

STAGE = FineTuneStage(steps=1, mixture={"a": 1.0}, lr=1e-3, frames=(2, 4), interval=(1, 3))


@pytest.fixture
def opened(sets):
    def _open(reader, root):
        return open_source(SourceConfig(reader=reader, **sets.write_set(reader, root)))

    return _open


def boxes_of(sample):
    return {thing.expression: [round(100 * v) for v in thing.box.as_list()] for thing in sample.objects}


@pytest.mark.parametrize(
    ("reader", "count", "rounds"),
    [
        ("cogvlm-sft", 2, (("Describe the image.", "A beach with surfers."),)),
        ("coco-qa", 2, (("What is the dog's colour?", "brown"),)),
        ("gqa", 2, (("What is on the white wall?", "pipe"),)),
        ("visual7w", 1, (("What is red?", "The mug."),)),
        ("videochat", 1, (("What happens?", "A ball rolls."), ("And then?", "It stops."))),
    ],
)
def test_questions_and_answers(opened, tmp_path, reader, count, rounds):
    source = opened(reader, tmp_path)
    assert len(source) == count
    assert source[0].rounds == rounds
    clip = ask(source[0], STAGE, (), np.random.default_rng(0))
    assert clip.dialogues[0].rounds == rounds
    assert clip.images[0].shape == (20, 40, 3)


@pytest.mark.parametrize(
    ("reader", "count", "boxes"),
    [
        ("grit", 3, {"A café dog": [10, 20, 50, 90]}),
        ("flickr30k-entities", 1, {"A bearded man": [10, 10, 60, 60], "The man 's arm": [10, 10, 60, 60]}),
        ("visual-genome", 2, {"the clock is green in colour": [10, 10, 60, 60]}),
    ],
)
def test_expressions_and_boxes(opened, tmp_path, reader, count, boxes):
    source = opened(reader, tmp_path)
    assert len(source) == count
    assert boxes_of(source[0]) == boxes
    clip = ask(source[0], STAGE, ("rec",), np.random.default_rng(0))
    assert clip.images[0].shape == (20, 40, 3)
    assert clip.dialogues[0].answers_boxes


def test_grit_is_read_over_several_tar_files(opened, tmp_path):
    source = opened("grit", tmp_path)
    assert [("00000.tar" in source[n].place, "00001.tar" in source[n].place) for n in range(3)] == [
        (True, False),
        (True, False),
        (False, True),
    ]


def test_grit_as_parquet(sets, tmp_path):
    table = pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    keys = [f"00000000{n}" for n in range(3)]
    parquet.write_table(
        table.Table.from_pylist([sets.grit_item(key) for key in keys]), tmp_path / "00000.parquet", row_group_size=2
    )
    sets.save_picture(tmp_path / "00000/000000002.jpg")
    source = open_source(SourceConfig(reader="grit", path=str(tmp_path)))
    assert len(source) == 3
    assert boxes_of(source[2]) == {"A café dog": [10, 20, 50, 90]}
    with pytest.raises(DataError, match=r"row 1 .*000000000\.jpg"):
        source[0]


def test_cogvlm_in_both_languages(opened, tmp_path):
    english = opened("cogvlm-sft", tmp_path)
    assert english[1].rounds == (("What is it?", "A mug."), ("Of what colour?", "Red."))
    chinese = open_source(SourceConfig(reader="cogvlm-sft", path=str(tmp_path / "cogvlm-sft"), split="zh"))
    assert chinese[0].rounds[0][1] == "海滩"


def test_pointing_questions_are_answered_by_a_box(sets, tmp_path):
    path = sets.visual7w(tmp_path).with_name("dataset_v7w_pointing.json")
    source = open_source(SourceConfig(reader="visual7w", path=str(path), media=str(tmp_path / "images")))
    assert source[0].rounds == (("Which thing is red?", "[10,10,60,60]"),)


def test_videochat_takes_frames_at_a_random_distance(opened, tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(
        "elysium_core.training.finetune.samples.read_frames", lambda _source, indices: shown.append(indices) or []
    )
    monkeypatch.setattr("elysium_core.training.finetune.samples._length", lambda _source: 12)
    sample = opened("videochat", tmp_path)[0]
    for seed in range(15):
        ask(sample, STAGE, (), np.random.default_rng(seed))
    steps = [{later - earlier for earlier, later in pairwise(indices)} for indices in shown]
    assert {len(indices) for indices in shown} == {2, 3, 4}
    assert set().union(*steps) == {1, 2, 3}
    assert all(len(step) == 1 for step in steps)


WRONG = {
    "grit": ("", "tar files of"),
    "cogvlm-sft": ("", "labels_<language>"),
    "coco-qa": ("", "img_ids.txt"),
    "gqa": ("train_balanced_questions.json", "imageId"),
    "visual7w": ("a.json", "qa_pairs"),
    "flickr30k-entities": ("", "Sentences"),
    "visual-genome": ("region_descriptions.json", "regions"),
    "videochat": ("a.json", "'QA'"),
}


@pytest.mark.parametrize("reader", PUBLISHED_SETS)
def test_a_wrong_file_says_which_form_was_expected(sets, tmp_path, reader):
    name, form = WRONG[reader]
    sets.write_json(tmp_path / (name or "a.json"), [{"image": "a.jpg", "conversations": []}])
    path = tmp_path / name if name == "a.json" else tmp_path
    with pytest.raises(DataError) as told:
        open_source(SourceConfig(reader=reader, path=str(path)))
    assert "expected" in str(told.value)
    assert form in str(told.value)
    assert str(tmp_path) in str(told.value)


class TestOwnQuestions:
    """The ``vqa`` of a line of ElysiumTrack."""

    @pytest.fixture
    def sample(self, sets, data_folder, tmp_path):
        line = json.loads((data_folder / "track/ElysiumTrack-1M.json").read_text().splitlines()[0])

        def read(vqa, **more):
            sets.write_json(tmp_path / "ElysiumTrack-1M.json", {**line, "vqa": vqa, **more})
            config = SourceConfig(reader="elysiumtrack", path=str(tmp_path), media=str(data_folder / "track"))
            return open_source(config)[0]

        return read

    def test_they_are_asked_beside_the_track(self, sample):
        vqa = [{"from": "human", "value": "<image>\nWhat is red?"}, {"from": "gpt", "value": "The mug."}]
        clip = ask(sample(vqa), STAGE, ("vqa",), np.random.default_rng(0))
        assert [dialogue.rounds for dialogue in clip.dialogues] == [(("What is red?", "The mug."),)]
        assert len(ask(sample(json.dumps(vqa)), STAGE, (), np.random.default_rng(0)).dialogues) == 4

    def test_slots_are_filled_and_boxes_belong_to_all_frames(self, sample):
        vqa = [
            {"from": "human", "value": "What is at <box>?", "box": [[0.1, 0.2, 0.5, 0.6]]},
            {"from": "gpt", "value": "The mug."},
        ]
        made = sample(vqa)
        assert made.rounds == (("What is at [10,20,50,60]?", "The mug."),)
        with pytest.raises(DataError, match="vqa"):
            ask(made, STAGE, ("vqa",), np.random.default_rng(0))
        with pytest.raises(DataError, match="2 slots"):
            sample([vqa[0] | {"value": "<box> or <box>?"}, vqa[1]])

    def test_a_line_of_questions_alone_needs_no_boxes(self, sample):
        vqa = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "The mug."}]
        made = sample(vqa, box=None)
        assert (made.track, made.at_intervals) == ((), True)
        assert 2 <= len(ask(made, STAGE, (), np.random.default_rng(0)).images) <= 4


class TestJsonItems:
    @pytest.mark.parametrize("mark", ["", "\ufeff"])
    def test_items_are_found_whatever_the_letters(self, tmp_path, mark):
        values = [{"a": 'ü{[\\"]}'}, {"b": ["海", {"c": 1}]}, {}]
        for number, content in enumerate((values, {f"ключ {n}": value for n, value in enumerate(values)})):
            path = tmp_path / f"{number}.json"
            path.write_text(mark + " \n" + json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
            items = JsonItems(path, "a form")
            assert [items[n] for n in (2, 0, 1)] == [values[2], values[0], values[1]]

    @pytest.mark.parametrize("text", ["", "[]", "7", '[{"a": 1}', '{"a" {}}', "[{} {}]", "{7: {}}", "[7]"])
    def test_other_files_are_refused(self, tmp_path, text):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(DataError, match="expected a form"):
            JsonItems(tmp_path / "a.json", "a form")[0]


class TestTrial:
    def test_data_of_a_later_stage_are_tried_before_the_first(self, sets, recipe, tmp_path):
        wrong = sets.write_json(tmp_path / "gqa.json", [{"conversations": []}])
        later = recipe.stages["all"].model_copy(update={"mixture": {"gqa": 1.0, "boxes": 1.0}})
        data = recipe.data | {
            "gqa": SourceConfig(reader="gqa", path=str(wrong)),
            "boxes": recipe.data["boxes"].model_copy(update={"media": str(tmp_path)}),
        }
        with pytest.raises(DataError) as told:
            try_sources(recipe.model_copy(update={"data": data, "stages": recipe.stages | {"later": later}}))
        assert "data.gqa (reader gqa)" in str(told.value)
        assert "imageId" in str(told.value)
        assert "data.boxes (reader grounding): none of 4 tried items can be used" in str(told.value)

    def test_one_usable_item_is_enough(self, recipe):
        try_sources(recipe)


@pytest.mark.parametrize(("task", "least"), [("sot", 20), ("rsot", 20), ("video_reg", 20), ("rec", 8), ("reg", 8)])
def test_every_task_has_many_phrasings_with_their_slots(task, least):
    phrasings = TRAINING[task]
    assert len({text.lower() for text in phrasings}) == len(phrasings) >= least
    slot = "{expression}" if task in ("rec", "rsot") else "{box}"
    assert all(text.count("{") == 1 and text.count(slot) == 1 for text in phrasings)
