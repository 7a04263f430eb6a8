from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import elysium_core
from elysium_core.checkpoint.integrity import described_file
from elysium_core.cli.app import app
from elysium_core.io.image import read_image, write_image
from elysium_core.tracking.identity import IdentityModel
from elysium_core.vision.onnx_export import ONNX_NAME, describe_graph

IDENTITY = ("--model", "identity")


def test_ground_reads_no_address_and_says_so(elysium):
    outcome = elysium("ground", "https://me:secret@example.org/a.jpg", "-e", "the mug", *IDENTITY, "--json")
    assert (outcome.code, outcome.lines[0]["error"]["code"]) == (2, "IMG_ADDRESS")
    assert "example.org" in outcome.err
    assert "secret" not in outcome.err


def test_ground_answers_every_expression(elysium, image):
    outcome = elysium("ground", image, "-e", "the mug", "-e", "the  dog", *IDENTITY, "--json")
    assert outcome.code == 0
    assert [line["expression"] for line in outcome.lines] == ["the mug", "the dog"]
    assert outcome.lines[0]["box"] == [0, 0, 1, 1]
    assert outcome.lines[0]["box_px"] == [0, 0, 64, 48]
    assert outcome.lines[0]["score"] == 1


def test_ground_for_a_person(elysium, image, tmp_path):
    outcome = elysium("ground", image, "-e", "the mug", *IDENTITY, "--render", tmp_path / "a.png")
    assert outcome.out == "the mug: [0.0, 0.0, 64.0, 48.0] px, score 1.00\n"
    assert read_image(tmp_path / "a.png").shape == (48, 64, 3)
    assert (read_image(tmp_path / "a.png") != read_image(image)).any()


@pytest.mark.parametrize("options", [(), ("--zoom",)])
def test_ground_looks_closer_when_asked_to(elysium, image, monkeypatch, options):
    asked = []

    class Model(IdentityModel):
        def ground(self, image, expression, *, zoom=False):
            asked.append(zoom)
            return super().ground(image, expression)

    monkeypatch.setattr("elysium_core.cli.ground.load_model", lambda *names, **settings: Model())
    assert elysium("ground", image, "-e", "the mug", *options).code == 0
    assert asked == [bool(options)]


@pytest.mark.parametrize("box", ["0.1,0.25,0.5,0.75", "6.4,12,32,36", "6.4px,12px,32px,36px"])
def test_describe_a_box_of_a_frame_inside_a_clip(elysium, video, box):
    outcome = elysium("describe", video, "--box", box, "--frame", 5, "--frames", 4, *IDENTITY, "--json")
    assert outcome.code == 0
    (answer,) = outcome.lines
    assert answer["text"] == "something at 10,25,50,75"
    assert answer["box"] == [0.1, 0.25, 0.5, 0.75]
    assert answer["frame"] == 5
    assert answer["frames"] == [0, 5, 7, 11]


def test_describe_a_box_of_the_last_frame_from_what_came_before(elysium, video):
    (answer,) = elysium("describe", video, "-b", "0,0,1,1", "-n", 11, "--frames", 3, *IDENTITY, "--json").lines
    assert answer["frames"] == [0, 6, 11]


def test_describe_a_box_of_a_frame_alone(elysium, video):
    (answer,) = elysium("describe", video, "-b", "0,0,1,1", "-n", 5, "--frames", 1, *IDENTITY, "--json").lines
    assert (answer["frame"], answer["frames"]) == (5, [5])


def test_describe_a_frame_that_cannot_be_read(elysium, image, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "0.png").write_bytes(b"damaged")
    for number in (1, 2):
        shutil.copyfile(image, folder / f"{number}{image.suffix}")
    outcome = elysium("describe", folder, "-b", "0,0,1,1", *IDENTITY)
    assert outcome.code == 2
    assert "no frame 0 that can be read" in outcome.err


def test_describe_a_box_of_one_picture(elysium, image):
    assert elysium("describe", image, "--box", "0,0,1,1", *IDENTITY).out == "something at 0,0,100,100\n"


@pytest.fixture
def long_video(tmp_path):
    """A folder of 40 pictures."""
    for number in range(40):
        write_image(tmp_path / "long" / f"{number}.png", np.full((48, 64, 3), 6 * number, np.uint8))
    return tmp_path / "long"


ASKING = {
    "ask": ("ask", "-q", "what?"),
    "caption": ("caption",),
    "describe": ("describe", "--box", "0,0,1,1"),
    "describe inside": ("describe", "--box", "0,0,1,1", "--frame", 17),
}


@pytest.mark.parametrize("verb", ASKING)
@pytest.mark.parametrize("count", [1, 3, 12, 20, 32])
def test_the_frames_that_are_listed_are_those_the_model_is_shown(
    elysium, long_video, tiny_folder, encoded, verb, count
):
    name, *words = ASKING[verb]
    outcome = elysium(name, long_video, *words, "--frames", count, "--model", tiny_folder, "--json")
    assert outcome.code == 0, outcome.err
    assert len(outcome.lines[0]["frames"]) == sum(encoded) == count


@pytest.mark.parametrize(
    ("verb", "clip_length", "count"),
    [("ask", 8, 16), ("caption", 4, 16), ("describe", 8, 8), ("describe", 4, 4), ("describe", 32, 8)],
)
def test_the_usual_number_of_frames(elysium, long_video, tiny_folder, encoded, tmp_path, verb, clip_length, count):
    """16 for questions and captions, as in the paper; 8 for descriptions, or the length of the training clips."""
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["elysium"]["clip_length"] = clip_length
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "SHA256SUMS").unlink()
    name, *words = ASKING[verb]
    outcome = elysium(name, long_video, *words, "--model", folder, "--json")
    assert outcome.code == 0, outcome.err
    assert len(outcome.lines[0]["frames"]) == sum(encoded) == count


def test_a_question_is_cleaned_and_listed_with_its_frames(elysium, video):
    (answer,) = elysium("ask", video, "--question", "what  is it?", *IDENTITY, "--json").lines
    assert answer == {"question": "what is it?", "answer": "no model is loaded", "frames": list(range(12))}
    (answer,) = elysium("ask", video, "-q", "what?", "--frames", 3, *IDENTITY, "--json").lines
    assert answer["frames"] == [0, 6, 11]


class Counter(IdentityModel):
    """Answers with the number of the round, and remembers what it was told."""

    def __init__(self) -> None:
        self.told = []

    def ask(self, frames, question, *, history=()):
        self.told.append((question, list(history)))
        return f"answer {len(history) + 1}"


@pytest.fixture
def counter(monkeypatch):
    model = Counter()
    monkeypatch.setattr("elysium_core.cli.ask.load_model", lambda *names, **options: model)
    return model


def test_questions_go_on_where_the_last_answer_stopped(elysium, video, counter):
    outcome = elysium("ask", video, "-q", "what?", "-q", "  and\nthen? ", "--question", "why?")
    assert outcome.out == "answer 1\nanswer 2\nanswer 3\n"
    rounds = [("what?", "answer 1"), ("and then?", "answer 2")]
    assert counter.told == [("what?", []), ("and then?", rounds[:1]), ("why?", rounds)]


def test_what_was_written_as_json_is_the_history_of_the_next_call(elysium, video, counter, tmp_path):
    talk = tmp_path / "talk.jsonl"
    talk.write_text(elysium("ask", video, "-q", "what?", "-q", "and then?", "--json").out + "\n")
    outcome = elysium("ask", video, "-q", "why?", "--history", talk, "--json")
    assert outcome.lines == [{"question": "why?", "answer": "answer 3", "frames": list(range(12))}]
    assert counter.told[-1] == ("why?", [("what?", "answer 1"), ("and then?", "answer 2")])
    talk.write_text(json.dumps([{"question": "who?", "answer": "a USER: in the answer"}]))
    elysium("ask", video, "-q", "why?", "--history", talk)
    assert counter.told[-1] == ("why?", [("who?", "a USER in the answer")])
    talk.write_text("")
    elysium("ask", video, "-q", "why?", "--history", talk)
    assert counter.told[-1] == ("why?", [])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[", "is not JSON"),
        (b'{"question": "what?"}', 'line 1 is not an object {"question": ..., "answer": ...}'),
        (b'[{"question": "what?", "answer": "a"}, 3]', "entry 2 is not an object"),
        (b'\n{"question": "what?", "answer": "a"}\nwhat?\n', "line 3 is not JSON"),
        (b'{"question": "</s>", "answer": "a"}', "line 1: the expression holds '</s>'"),
        (b'{"question": "what?", "answer": null}', "line 1: an answer must be text"),
        (b"\xff", "is not UTF-8"),
        (b" " * (2 << 20), "has 2 MiB"),
        (None, "No such file"),
    ],
)
def test_a_damaged_history_is_one_line(elysium, video, counter, tmp_path, content, reason):
    talk = tmp_path / "talk.jsonl"
    if content is not None:
        talk.write_bytes(content)
    outcome = elysium("ask", video, "-q", "why?", "--history", talk)
    assert (outcome.code, outcome.out, counter.told) == (2, "", [])
    assert reason in outcome.err
    assert str(talk) in outcome.err
    assert outcome.err.count("\n") == 1


def test_a_chat_answers_each_line_and_survives_a_bad_one(video, counter):
    typed = "what?\n\n</s>\n  and then?  \nno line end"
    result = CliRunner().invoke(app, ["ask", str(video), "-q", "first?", "--chat"], input=typed, catch_exceptions=False)
    assert result.exit_code == 0
    assert result.stdout == "answer 1\nanswer 2\nanswer 3\nanswer 4\n"
    assert [asked for asked, _ in counter.told] == ["first?", "what?", "and then?", "no line end"]
    assert result.stderr.count("\n") == 1, "no prompt where nobody types"
    assert "prompt format" in result.stderr


def test_a_person_is_prompted(video):
    command = [sys.executable, "-m", "elysium_core.cli", "ask", str(video), "--chat", *IDENTITY]
    person, terminal = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(Path(elysium_core.__file__).parents[1])}
    with subprocess.Popen(
        command, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as talk:
        os.close(terminal)
        os.write(person, b"what is it?\n\x04")
        out, err = talk.communicate(timeout=100)
    os.close(person)
    assert (talk.returncode, out) == (0, "no model is loaded\n")
    assert err.startswith("Ask a question")
    assert err.count("> ") == 2


def test_caption(elysium, video):
    (answer,) = elysium("caption", video, *IDENTITY, "--json").lines
    assert answer["text"] == "no model is loaded"
    assert answer["frames"] == list(range(12))
    assert elysium("caption", video, *IDENTITY).out == "no model is loaded\n"


def test_the_image_is_not_overwritten_by_its_drawing(elysium, image):
    before = image.read_bytes()
    outcome = elysium("ground", image, "-e", "the mug", *IDENTITY, "--render", image)
    assert outcome.code == 2
    assert str(image) in outcome.err
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("ground", "{image}"), "say what to find"),
        (("ground", "{image}", "-e", "</s>"), "prompt format"),
        (("ground", "{video}", "-e", "mug"), "is not a JPEG"),
        (("ground", "{image}", "-e", "mug", "--render", "a.mp4"), "cannot write an image"),
        (("describe", "{video}"), "Missing option '--box'"),
        (("describe", "{video}", "--box", "0,0,0,0"), "reversed or empty"),
        (("describe", "{video}", "--box", "0,0,1,1", "--frame", "12"), "no frame 12"),
        (("describe", "{video}", "--box", "0,0,1,1", "--frame", "-1"), "--frame"),
        (("describe", "{video}", "--box", "0,0,1,1", "--frames", "33"), "--frames"),
        (("ask", "{video}"), "say what to ask"),
        (("ask", "{video}", "--question", ""), "expression is empty"),
        (("ask", "{video}", "--question", "USER: hi"), "prompt format"),
        (("caption", "/no/such.mp4"), "there is no video"),
    ],
)
def test_bad_input_is_one_line(elysium, image, video, arguments, reason):
    paths = {"{image}": image, "{video}": video}
    outcome = elysium(*(paths.get(argument, argument) for argument in arguments), *IDENTITY)
    assert outcome.code == 2
    assert reason in outcome.err
    assert outcome.err.count("\n") == 1
    assert outcome.out == ""


@pytest.mark.parametrize("verb", ["ground", "describe", "ask", "caption", "track", "export"])
def test_pickled_weights_are_read_when_the_command_line_says_so(
    elysium, pickled_model, image, tmp_path, cache, monkeypatch, verb
):
    rest = {
        "ground": (image, "-e", "the mug"),
        "describe": (image, "--box", "0,0,1,1"),
        "ask": (image, "-q", "what?"),
        "caption": (image,),
        "track": (image, "-e", "the mug"),
        "export": ("--out", tmp_path / "out"),
    }[verb]
    refused = elysium(verb, *rest, "--model", pickled_model)
    assert refused.code == 2
    assert "--allow-pickle-weights" in refused.err
    # The weights are read before anything is exported.
    monkeypatch.setattr("elysium_core.vision.onnx_export.export_onnx", write_no_graph)
    assert elysium(verb, *rest, "--model", pickled_model, "--allow-pickle-weights").code == 0


def write_no_graph(network, folder, precision):
    """Stands for the exporter, which takes seconds."""
    with described_file(folder / ONNX_NAME, asdict(describe_graph(network, precision))) as graph:
        graph.write_bytes(b"a graph")
    return folder / ONNX_NAME


@pytest.fixture
def pickled_model(tiny_folder, tmp_path, pickles_converted_here):
    """The tiny checkpoint with its weights in ``pytorch_model.bin``."""
    folder = shutil.copytree(tiny_folder, tmp_path / "pickled")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    (folder / "SHA256SUMS").unlink()
    return folder
