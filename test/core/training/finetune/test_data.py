from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from elysium_core.errors import DataError
from elysium_core.prompt.box_text import parse_answer
from elysium_core.prompt.layout import VISUAL_SLOT
from elysium_core.runtime import Runtime
from elysium_core.training.finetune.finetune_recipe import SourceConfig
from elysium_core.training.finetune.line_file import LineFile
from elysium_core.training.finetune.mixed_batches import DataBatches, ModelInput
from elysium_core.training.finetune.samples import AskedClip, Dialogue, ask, choose_frames
from elysium_core.training.finetune.sources import open_source


@pytest.fixture
def stage(recipe):
    return recipe.stages["all"]


class TestFrames:
    @given(
        st.integers(0, 2**32 - 1),
        st.integers(1, 80),
        st.tuples(st.integers(1, 8), st.integers(0, 24)),
        st.tuples(st.integers(1, 30), st.integers(0, 30)),
    )
    def test_they_are_in_order_and_at_one_distance(self, seed, available, count, interval):
        low, high = count[0], count[0] + count[1]
        short, long = interval[0], interval[0] + interval[1]
        found = choose_frames(np.random.default_rng(seed), range(available), (low, high), (short, long))
        assert min(low, available) <= len(found) <= high
        steps = set(np.diff(found).tolist())
        assert len(steps) <= 1
        assert all(1 <= step <= long for step in steps)
        assert 0 <= found[0] <= found[-1] < available


class TestLines:
    def test_any_line_is_found(self, tmp_path):
        path = tmp_path / "lines.jsonl"
        path.write_text('{"a": 1}\n\n{"a": "ü"}\n{"a": 3}')
        lines = LineFile(path)
        assert [lines[n]["a"] for n in (2, 0, 1)] == [3, 1, "ü"]
        assert lines.place(1).startswith("line 3 of")

    def test_a_list_is_read_too(self, tmp_path):
        path = tmp_path / "list.json"
        path.write_text('[{"a": 1},\n {"a": 2}]')
        lines = LineFile(path)
        assert (len(lines), lines[1]["a"]) == (2, 2)

    @pytest.mark.parametrize(
        "text", ['\ufeff[{"a": 1}, {"a": 2}]', '\n\n [{"a": 1},\n{"a": 2}]', '\ufeff{"a": 1}\n{"a": 2}']
    )
    def test_marks_and_blanks_in_front_are_ignored(self, tmp_path, text):
        path = tmp_path / "a.json"
        path.write_text(text, encoding="utf-8")
        lines = LineFile(path)
        assert [lines[index]["a"] for index in range(len(lines))] == [1, 2]

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
    def test_other_encodings_are_refused_by_name(self, tmp_path, encoding):
        (tmp_path / "a.json").write_text('[{"a": 1}]', encoding=encoding)
        with pytest.raises(DataError, match="convert it to UTF-8"):
            LineFile(tmp_path / "a.json")

    @pytest.mark.parametrize("content", ["", "\n\n"])
    def test_an_empty_file_is_told(self, tmp_path, content):
        path = tmp_path / "empty.jsonl"
        path.write_text(content)
        with pytest.raises(DataError, match="is empty"):
            LineFile(path)

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ({"image": "000.png", "conversations": [{"from": "gpt", "value": "x"}]}, "take turns"),
            ({"image": "000.png", "conversations": [{"from": "cat", "value": "x"}]}, "misspells"),
            ({"image": "no.png", "conversations": [{"from": "human", "value": "x"}]}, "needs|missing"),
            ({"image": "000.png"}, "conversations"),
            (["x"], "JSON list"),
        ],
    )
    def test_a_bad_line_is_named(self, data_folder, tmp_path, line, reason):
        path = tmp_path / "bad.jsonl"
        path.write_text(json.dumps({"a": 1}) + "\n" + json.dumps(line))
        source = open_source(SourceConfig(reader="conversation", path=str(path), media=str(data_folder / "pictures")))
        with pytest.raises(DataError, match=reason) as told:
            source[1]
        assert "line 2 of" in str(told.value)

    @staticmethod
    def conversation(data_folder, tmp_path, **line):
        path = tmp_path / "a.jsonl"
        path.write_text(json.dumps(line))
        return open_source(SourceConfig(reader="conversation", path=str(path), media=str(data_folder / "pictures")))[0]

    @pytest.mark.parametrize("value", [None, [], {}, ["a"], {"text": "a"}, True, ""])
    @pytest.mark.parametrize("side", [0, 1])
    def test_what_is_no_text_is_never_learnt_as_words(self, data_folder, tmp_path, side, value):
        turns = [{"from": "human", "value": "<image>What?"}, {"from": "gpt", "value": "A mug."}]
        turns[side]["value"] = value
        with pytest.raises(DataError, match="line 1 of"):
            self.conversation(data_folder, tmp_path, image="000.png", conversations=turns)

    @pytest.mark.parametrize("missing", [{}, {"image": None}, {"video": None, "image": ""}, {"frames": []}])
    def test_a_conversation_without_images_has_none(self, data_folder, tmp_path, missing):
        turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]
        sample = self.conversation(data_folder, tmp_path, conversations=turns, **missing)
        assert (sample.frames, sample.rounds) == (None, (("Hi", "Hello."),))

    @pytest.mark.parametrize(
        "line",
        [
            {"conversations": [{"from": "USER", "value": "Hi<image>"}, {"from": "ASSISTANT", "value": "Hello."}]},
            {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]},
            {"conversation": [{"from": "human", "value": "Hi"}, {"from": "chatgpt", "value": "Hello."}]},
            {
                "conversations": [
                    {"from": "system", "value": "Be kind."},
                    {"from": "human", "value": "Hi"},
                    {"from": "gpt", "value": "Hello."},
                ]
            },
        ],
    )
    @pytest.mark.parametrize("image", ["000.png", ["000.png"]])
    def test_dialects_of_the_layout_are_read(self, data_folder, tmp_path, line, image):
        sample = self.conversation(data_folder, tmp_path, image=image, **line)
        assert sample.rounds == (("Hi", "Hello."),)
        assert sample.frames.count == 1

    @pytest.mark.parametrize(
        "line", [{"conversations": None}, {"conversations": "Hi"}, {"conversations": [None]}, {"frames": [None]}]
    )
    def test_other_kinds_are_named(self, data_folder, tmp_path, line):
        turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]
        with pytest.raises(DataError, match="line 1 of"):
            self.conversation(data_folder, tmp_path, **{"conversations": turns, **line})

    @pytest.mark.parametrize("words", [None, ["mug"], {}, True, " "])
    def test_expressions_are_words(self, data_folder, tmp_path, words):
        path = tmp_path / "boxes.jsonl"
        path.write_text(
            json.dumps({"image": "000.png", "objects": [{"expression": words, "box": [0.1, 0.1, 0.5, 0.5]}]})
        )
        source = open_source(SourceConfig(reader="grounding", path=str(path), media=str(data_folder / "pictures")))
        with pytest.raises(DataError, match="expression"):
            source[0]

    def test_labels_follow_the_size_of_each_picture(self, tmp_path):
        (tmp_path / "mug/frames").mkdir(parents=True)
        for index, width in enumerate([64, 64, 128]):
            Image.new("RGB", (width, 48)).save(tmp_path / "mug/frames" / f"{index}.png")
        (tmp_path / "mug/gt.txt").write_text("16,12,16,12\n16,12,16,12\n32,12,32,12\n")
        sample = open_source(SourceConfig(reader="folder", path=str(tmp_path)))[0]
        assert [box.as_list() for box in sample.track] == [[0.25, 0.25, 0.5, 0.5]] * 3


class TestQuestions:
    def test_a_track_is_asked_in_frames_that_show_it(self, recipe, stage):
        source = open_source(recipe.data["track"])
        sample = source[0]
        assert sample.track[3] is None
        for seed in range(20):
            clip = ask(sample, stage, (), np.random.default_rng(seed))
            assert 2 <= len(clip.images) <= 4
            for dialogue in clip.dialogues:
                if dialogue.answers_boxes:
                    boxes = parse_answer(dialogue.rounds[0][1], len(clip.images)).boxes
                    assert all(box is not None for box in boxes)

    def test_tasks_narrow_what_is_asked(self, recipe, stage):
        sample = open_source(recipe.data["ref"])[0]
        clip = ask(sample, stage, ("reg",), np.random.default_rng(0))
        assert [dialogue.rounds[0][1] for dialogue in clip.dialogues] == ["the mug"]
        with pytest.raises(DataError, match="tasks sot"):
            ask(sample, stage, ("sot",), np.random.default_rng(0))

    def test_the_slot_of_the_picture_is_no_text(self, recipe, stage):
        clip = ask(open_source(recipe.data["chat"])[0], stage, (), np.random.default_rng(0))
        assert clip.dialogues == [Dialogue((("What is it?", "the mug"), ("Where?", "at [10,20,30,40]")))]


class TestLayout:
    @pytest.fixture
    def batches(self, recipe, stage, tiny_folder, runtime) -> DataBatches:
        config = runtime.family.network.config
        layout = ModelInput(str(tiny_folder / "llm"), config.system_text, config.adapter.out_token_num, 32)
        return DataBatches(recipe, stage, stage.mixture, layout, 0)

    def test_a_conversation_is_what_inference_reads(self, batches, runtime: Runtime):
        batches.sizes()
        image = np.zeros((32, 32, 3), np.uint8)
        rounds = (("What is it?", "the mug"), ("Where?", "at [10,20,30,40]"))
        row = batches._open().builder.build(AskedClip([image], [Dialogue(rounds)]))
        visual = runtime.encode_frames([image])
        tokenizer = runtime.tokenizer
        found = []
        engine = runtime.new_engine()
        engine.answer = lambda requests, prefix: [found.append((requests, prefix))]
        runtime.new_engine = lambda *arguments: engine
        runtime.ask(visual, "Where?", history=[rounds[0]])
        ((request,), prefix) = found[0]
        ids = torch.tensor(row.ids)
        answer = [*tokenizer.encode_answer(rounds[1][1]), tokenizer.eos_id]
        asked = ids[torch.tensor(row.branch) == 1][: -len(answer)]
        assert torch.equal(runtime.family.network.llm.embed(asked), request.embeddings)
        assert (torch.tensor(row.branch) == 0).sum() == len(prefix)
        assert row.positions == list(range(len(row.ids)))
        labelled = ids[torch.tensor(row.weight) > 0].tolist()
        first = [*tokenizer.encode_answer("the mug"), tokenizer.eos_id]
        assert labelled == first + answer
        digits = [tokenizer.token_text(i) for i, digit in zip(row.ids, row.digit, strict=True) if digit]
        assert "".join(digits) == "10203040"

    def test_slots_and_pictures_agree(self, batches):
        for number in range(5):
            batch = batches[number]
            assert batch.frame_counts.sum() == len(batch.images)
            slots = (batch.token_ids == VISUAL_SLOT).sum(1)
            assert slots.tolist() == (6 * batch.frame_counts).tolist()
            assert ((batch.label_weight > 0).sum(1) > 0).all()

    def test_batches_are_numbered_through_processes(self, recipe, stage, batches):
        large = batches[1]
        halves = DataBatches(recipe, stage.model_copy(update={"batch": 2}), stage.mixture, batches._model, 0)
        assert torch.equal(large.images, torch.cat([halves[2].images, halves[3].images]))

    def test_what_does_not_fit_is_left_out(self, recipe, stage, batches):
        short = DataBatches(recipe, stage.model_copy(update={"max_tokens": 60}), {"chat": 1.0}, batches._model, 0)
        batch = short[0]
        assert batch.token_ids.shape[1] <= 60
        shorter = DataBatches(recipe, stage.model_copy(update={"max_tokens": 12}), {"chat": 1.0}, batches._model, 0)
        with pytest.raises(DataError, match="no question fits into max_tokens = 12"):
            shorter[0]
