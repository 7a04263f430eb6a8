from __future__ import annotations

import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from bench import engine_workload as workload
from bench.engine_cost import Subject, measure_packing, measure_streams
from bench.engine_peers import (
    CLIP,
    HF_CLIPS,
    HF_LIVE,
    MIN_FRAMES,
    compare,
    measure_peers,
    same_prompts_name,
    stream_name,
    time_in_turns,
)
from bench.engine_recording import scripted_choice
from bench.engine_report import check_plot, draw_plot
from bench.engine_soak import measure_soak
from bench.hf_decoder import HfDecoder
from elysium_core.api import Elysium
from elysium_core.engine.draft_tree import DraftTree
from elysium_core.errors import BackendError, ConfigError
from elysium_core.geometry import Box
from elysium_core.prompt.box_text import format_box, format_track
from elysium_core.prompt.conversation import frame_pieces, question_piece
from elysium_core.prompt.questions import PUBLISHED, SOT, fill
from elysium_core.tracking import box_tree

CPU = torch.device("cpu")
ANCHOR, GROWING = stream_name("anchor"), stream_name("growing")
STILL = Box(0.12, 0.34, 0.56, 0.78)
# One digit differs, the last of a coordinate in the middle.
MOVED = Box(0.12, 0.35, 0.56, 0.78)
# A power of two: means over frames are exact.
FRAMES = 16
# The fewest for which few_frames makes several clips.
FEW = 9
BOXES = [STILL, Box(0.2, 0.2, 0.4, 0.4), Box(0.5, 0.1, 0.9, 0.6)]


@pytest.fixture(scope="module")
def random_runtime():
    return workload.random_runtime(workload.SIZES["tiny"], CPU, torch.float32)


@pytest.fixture
def scripted(random_runtime):
    """Random weights that answer with the truth, ``scripted(boxes[target][frame])``; drafts are no trees."""

    def make(*tracks, draft_tokens=0):
        frames = len(tracks[0])
        scene = workload.Scene(np.zeros((frames, 8, 8, 3), np.uint8), tracks)
        visual = workload.random_visual_tokens(random_runtime, frames, 8)
        return Subject(random_runtime, scene, visual, scripted=True, draft_tokens=draft_tokens)

    return make


def test_a_scene_shows_as_many_things_as_are_asked_for(monkeypatch):
    drawn = []
    draw = workload.ClipGenerator.draw
    monkeypatch.setattr(
        workload.ClipGenerator,
        "draw",
        lambda self, frames, things, gap: drawn.append(things) or draw(self, frames, things, gap),
    )
    for targets, things in [(1, 3), (1, 8), (5, 3)]:
        assert len(workload.draw_scene(3, MIN_FRAMES, targets, 30.0, 32, things).boxes) == targets
    assert drawn == [3, 8, 5]


@pytest.fixture
def own_words(brief_folder):
    """The tiny model with its own answers, which have no form."""
    runtime = Elysium.from_pretrained(brief_folder, device="cpu").runtime
    scene = workload.draw_scene(3, FRAMES, 2, 30.0, 32)
    return Subject(runtime, scene, [seen.rows for seen in runtime.encode_frames(list(scene.images))])


def sizes(runtime, count):
    """Tokens of a prompt's parts: each frame's, the question's, and those of an answer about ``count`` frames."""
    tokenizer = runtime.tokenizer
    pieces = frame_pieces(32, runtime.family.network.config.system_text)
    question = question_piece(fill(PUBLISHED[SOT], box=format_box(STILL)))
    return (
        [len(tokenizer.encode_piece(piece)) + 8 for piece in pieces],
        len(tokenizer.encode_piece(question)),
        len(tokenizer.encode_answer(format_track([STILL] * count))),
    )


def test_counters_of_a_still_target_are_exact(scripted):
    subject = scripted([STILL] * 12)
    frame, question, answer = sizes(subject.runtime, 2)
    cost = measure_streams([subject], "anchor")
    assert (cost.frames, cost.passes, cost.passes_max, cost.passes_per_answer) == (11, 1, 1, 1)
    assert (cost.acceptance, cost.whole_answers, cost.coordinates, cost.repeat_rate) == (1, 1, 1, 1)
    assert (cost.vision_encodes, cost.departures) == (1, 0)
    # Each frame: the live frame, the question, the answer (its first box given, its second drafted), the end token.
    assert cost.tokens * 11 == frame[0] + 11 * (frame[1] + question + answer + 1)
    given = len(subject.runtime.tokenizer.encode_answer("Frame 1: [12,34,56,78],"))
    assert cost.confirmed == answer - given + 1
    assert (cost.kv_tokens, cost.kv_used) == (512, frame[0] + frame[1])


def test_counters_of_a_growing_window_are_exact(scripted):
    subject = scripted([STILL] * 15)
    cost = measure_streams([subject], "growing")
    tokens = 0
    for number in (2, 3, 4, 5, 6, 7, 8) * 2:
        frame, question, answer = sizes(subject.runtime, number)
        # A window opens with the frame that the one before ended with.
        tokens += (frame[0] if number == 2 else 0) + frame[number - 1] + question + answer + 1
    assert cost.passes == 1
    assert cost.tokens * 14 == tokens
    assert (cost.kv_tokens, cost.kv_used) == (512, sum(frame[:8]))


def test_a_wrong_digit_costs_a_pass(scripted):
    subject = scripted([STILL, STILL, MOVED, MOVED, MOVED])
    frame, question, answer = sizes(subject.runtime, 2)
    cost = measure_streams([subject], "anchor")
    assert (cost.passes, cost.passes_max) == (5 / 4, 2)
    assert cost.whole_answers == 3 / 4
    assert (cost.coordinates, cost.repeat_rate) == (15 / 16, 15 / 16)
    # Behind the model's own digit: the digit itself, what follows it, and the end token.
    tokenizer = subject.runtime.tokenizer
    written = tokenizer.encode_answer("Frame 1: [12,34,56,78], Frame 2: [12,35")
    again = len(tokenizer.encode_answer("Frame 1: [12,34,56,78], Frame 2: [12,35,56,78].")) - len(written)
    assert cost.tokens * 4 == frame[0] + 4 * (frame[1] + question + answer + 1) + 1 + again + 1


def test_targets_together_cost_one_pass_and_their_own_suffixes(scripted):
    subject = scripted(*([box] * 6 for box in BOXES))
    for cost in measure_packing(subject, "anchor", [1, 3]):
        assert (cost.passes, cost.passes_apart) == (5, 5 * cost.targets)
        assert cost.identical == cost.boxes == 6 * cost.targets
    frame, question, answer = sizes(subject.runtime, 2)
    suffix = question + answer + 1
    assert cost.tokens_apart == 3 * (frame[0] + 5 * (frame[1] + suffix))
    questions = [
        subject.runtime.tokenizer.encode_piece(question_piece(fill(PUBLISHED[SOT], box=format_box(b)))) for b in BOXES
    ]
    stem = next(i for i, ids in enumerate(zip(*questions, strict=True)) if len(set(ids)) > 1)
    assert stem > 5
    assert cost.tokens == frame[0] + 5 * (frame[1] + stem + 3 * (suffix - stem))
    assert cost.token_ratio == cost.tokens / cost.tokens_apart


def test_transformers_gives_the_same_answers(own_words, few_frames):
    comparison = measure_peers(own_words, ["anchor", "growing"], turns=0, clip_length=3)
    peers = {peer.name: peer for peer in comparison.peers}
    alike = [same_prompts_name(ANCHOR), same_prompts_name(GROWING)]
    assert set(peers) == {ANCHOR, GROWING, CLIP, HF_LIVE, HF_CLIPS, *alike}
    for name in alike:
        assert peers[name].identical == peers[name].answers == FRAMES - 1
    # 16 frames are 7 clips of 3, and one of 2.
    assert (peers[HF_CLIPS].identical, peers[HF_CLIPS].answers) == (8, 8)
    assert peers[HF_LIVE].identical is None
    assert comparison.ratios == {}
    assert all(peer.seconds is None for peer in peers.values())


@pytest.fixture(scope="module")
def nano():
    """The shipped model and the scene of one target that it follows."""
    runtime = Elysium.from_pretrained("nano", device="cpu", dtype="float32").runtime
    scene = workload.draw_scene(7, FRAMES, 2, 30.0, runtime.family.network.visual_encoder.side_px)
    return Subject(runtime, scene, [seen.rows for seen in runtime.encode_frames(list(scene.images))])


def test_a_trained_model_answers_as_with_transformers_in_a_fifteenth_of_the_passes(nano, few_frames):
    scene = workload.Scene(nano.scene.images[:FEW], [track[:FEW] for track in nano.scene.boxes])
    brief = replace(nano, scene=scene, visual=nano.visual[:FEW])
    peers = {peer.name: peer for peer in measure_peers(brief, ["anchor", "growing"], turns=0, clip_length=4).peers}
    for name in (same_prompts_name(ANCHOR), same_prompts_name(GROWING), HF_CLIPS):
        assert peers[name].identical == peers[name].answers > 0
    assert 15 * peers[ANCHOR].passes < peers[HF_LIVE].passes
    assert 15 * peers[GROWING].passes < peers[HF_LIVE].passes


@pytest.mark.parametrize("window", ["anchor", "growing"])
@pytest.mark.parametrize("draft_tokens", [0, 256])
def test_trees_and_company_change_no_box_of_a_trained_model(nano, window, draft_tokens, monkeypatch):
    # As on a GPU, where tokens are nearly free and trees are large.
    monkeypatch.setitem(box_tree._LEAST_GAIN, "cpu", 1e-4)
    (packing,) = measure_packing(replace(nano, draft_tokens=draft_tokens), window, [2])
    assert packing.identical == packing.boxes == 2 * FRAMES
    assert packing.tokens < packing.tokens_apart


def test_an_answer_that_differs_is_counted(own_words, few_frames, monkeypatch):
    generate = HfDecoder.generate
    calls = []

    def lie_once(self, prompt, longest, forced=None):
        calls.append(1)
        answer = generate(self, prompt, longest, forced)
        return [*answer, 5] if len(calls) == 3 else answer

    monkeypatch.setattr(HfDecoder, "generate", lie_once)
    peers = {peer.name: peer for peer in measure_peers(own_words, ["anchor"], turns=0, clip_length=2).peers}
    judged = [peer for peer in peers.values() if peer.identical is not None]
    assert sorted(peer.answers - peer.identical for peer in judged) == [0, 1]


def test_costs_of_transformers_are_exact(scripted, few_frames):
    subject = scripted([STILL] * FRAMES)
    tokenizer = subject.runtime.tokenizer
    peers = {peer.name: peer for peer in measure_peers(subject, ["anchor"], turns=0, clip_length=4).peers}
    assert GROWING not in peers
    frame, question, answer = sizes(subject.runtime, 2)
    given = len(tokenizer.encode_answer("Frame 1: [12,34,56,78],"))
    asked = FRAMES - 1
    # One pass for the prompt gives the first token; then one a token, the end token included.
    alike = peers[same_prompts_name(ANCHOR)]
    assert alike.passes * FRAMES == asked * (answer - given + 1)
    assert alike.tokens * FRAMES == asked * (frame[0] + frame[1] + question + answer)
    # Live: clips that grow from 2 frames to 4, five times, each answered from the first frame on.
    live = [2, 3, 4] * 5
    costs = [sizes(subject.runtime, count) for count in live]
    assert peers[HF_LIVE].passes * FRAMES == sum(answer + 1 for _, _, answer in costs)
    expected = sum(sum(frame[:count]) + question + answer for count, (_, _, answer) in zip(live, costs, strict=True))
    assert peers[HF_LIVE].tokens * FRAMES == expected
    # 16 frames are five clips of 4 that share a frame each.
    answer_about_four = len(tokenizer.encode_answer(format_track([STILL] * 4)))
    assert peers[HF_CLIPS].passes * FRAMES == 5 * (answer_about_four + 1)
    assert peers[CLIP].passes * FRAMES == 5
    assert peers[ANCHOR].passes * FRAMES == asked
    assert alike.identical is None, "answers that were forced prove nothing"


def test_clips_are_as_long_as_wanted(scripted, few_frames, no_transformers):
    comparison = measure_peers(scripted([STILL] * FRAMES), ["growing"], turns=0, clip_length=5)
    peers = {peer.name: peer for peer in comparison.peers}
    assert comparison.clip_length == 5
    # 16 frames are 3 clips of 5, and one of 4.
    assert peers[CLIP].passes * FRAMES == 4


def test_ours_and_transformers_are_timed_in_every_turn(scripted, few_frames, no_transformers):
    comparison = measure_peers(scripted([STILL] * FEW), ["growing"], turns=2, clip_length=2)
    pairs = {(baseline, ours) for baseline in (HF_LIVE, HF_CLIPS) for ours in (GROWING, CLIP)}
    assert set(comparison.ratios) == pairs
    timed = {peer.name for peer in comparison.peers if peer.seconds is not None}
    assert timed == {GROWING, CLIP, HF_LIVE, HF_CLIPS}
    told = comparison.as_json()["ratios"]
    assert {(ratio["baseline"], ratio["ours"]) for ratio in told} == pairs
    assert all(bool(ratio["refused"]) != bool(ratio["quartiles"]) for ratio in told)


def test_a_script_says_nothing_behind_wrong_words():
    #  root -> 5 -> 6 -> 7       right: 5 6 8
    #               \-> 8
    #       \-> 9 -> 4
    draft = DraftTree((5, 6, 7, 8, 9, 4), (-1, 0, 1, 1, -1, 4))
    assert scripted_choice(draft, [5, 6, 8, 2]) == [5, 6, 8, 2, 2, 4, 2]


REPORT = {
    "model": "nano",
    "llm_parameters": 2_000_000,
    "visual_tokens": 24,
    "device": "cpu",
    "dtype": "float32",
    "threads": 1,
    "streams": [{"window": "anchor", "rate_hz": hz, "passes": 40 / hz} for hz in (30, 10, 5)],
    "packing": [{"window": "growing", "targets": n, "token_ratio": 1 / n} for n in (1, 2, 16)],
}


@pytest.mark.parametrize(
    "ratios",
    [
        [],
        [{"baseline": "b", "ours": "o", "quartiles": [], "refused": "spread"}],
        [{"baseline": "b", "ours": "o", "quartiles": [2.0, 3.0, 5.0], "refused": ""}],
    ],
)
def test_a_report_is_drawn(tmp_path, ratios):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    draw_plot(tmp_path / "engine.png", REPORT | {"peers": {"ratios": ratios}})
    assert cv2.imread(str(tmp_path / "engine.png")) is not None
    assert [file.name for file in tmp_path.iterdir()] == ["engine.png"]


def test_a_plot_that_cannot_be_drawn_is_refused_at_once(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="not a PNG"):
        check_plot(tmp_path / "engine.svg")
    with pytest.raises(ConfigError, match="does not exist"):
        check_plot(tmp_path / "nowhere" / "engine.png")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match="needs matplotlib") as caught:
        check_plot(tmp_path / "engine.png")
    assert caught.value.code == "PACKAGE_MISSING"


def test_runs_are_timed_in_turns():
    order = []
    times = time_in_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3, CPU)
    assert order == ["a", "b"] * 3
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3}


def test_ratios_are_those_of_pairs():
    # The machine became twice as slow half-way, for both alike.
    ratio = compare(np.array([10.0, 10, 11, 11]), np.array([5.0, 2, 1.1, 11]))
    assert ratio.quartiles == pytest.approx(np.percentile([2, 5, 10, 1], (25, 50, 75)))
    assert ratio.refused == ""


def test_a_restless_baseline_is_refused():
    ratio = compare(np.array([1.0, 1, 2, 2]), np.ones(4))
    assert ratio.quartiles == ()
    assert ratio.spread == pytest.approx(2 / 3)
    assert "67%" in ratio.refused


@pytest.mark.parametrize("window", ["anchor", "growing"])
def test_a_long_run_does_not_grow(scripted, window):
    cost = measure_soak(scripted([STILL, MOVED, STILL]), window, 120)
    assert (cost.frames, cost.vision) == (120, False)
    assert cost.kv_early == cost.kv_late
    # Twelve frames each, which is three times there and back.
    assert cost.passes_early == cost.passes_late <= 2
    assert cost.ms[0] <= cost.ms[1] <= cost.ms[2]
    assert cost.memory_growth < 0.5


def test_a_long_run_of_a_whole_model_sees_pictures(own_words, monkeypatch):
    seen = []
    encode = own_words.runtime.family.vision.encode
    monkeypatch.setattr(
        own_words.runtime.family.vision, "encode", lambda images: seen.extend(i.shape for i in images) or encode(images)
    )
    counted = []
    cost = measure_soak(own_words, "anchor", 20, lambda: counted.append(1))
    assert cost.vision
    assert seen == [(480, 640, 3)] * 20
    assert len(counted) == 20


def test_the_peer_runs_on_the_same_weights(runtime, judge):
    llm = runtime.family.network.llm
    hf = HfDecoder(llm, 2)
    prompt = runtime.family.embed(runtime.tokenizer.encode_piece("where is the mug?"))
    assert hf.generate(prompt, 12) == judge(prompt, 12)
    assert (hf.passes, hf.tokens) == (12, len(prompt) + 11)
    own = {weight.data_ptr() for weight in llm.parameters()}
    assert {weight.data_ptr() for weight in hf._model.parameters()} == own
    assert hf.generate(prompt, 12, forced=[7, 8, 9]) == [7, 8, 9]


def test_a_scene_is_played_there_and_back():
    scene = workload.Scene(np.zeros((4, 2, 2, 3), np.uint8), [[STILL, MOVED, MOVED, STILL]])
    assert [scene.place(step) for step in range(10)] == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3]
    assert scene.repeat_rate == pytest.approx(10 / 12)


def test_scenes_are_drawn_the_same_and_faster_ones_move_more():
    scenes = [workload.draw_scene(5, 12, 4, rate, 64) for rate in (30, 30, 5)]
    assert scenes[0].boxes == scenes[1].boxes
    assert (scenes[0].images == scenes[1].images).all()
    assert scenes[0].repeat_rate > scenes[2].repeat_rate
    assert [len(track) for track in scenes[0].boxes] == [12] * 4


@pytest.mark.parametrize(
    ("values", "box"),
    [
        ((0.1, 0.2, 0.3, 0.4), (0.1, 0.2, 0.3, 0.4)),
        ((0.996, 0.999, 1.2, 1.0), (0.99, 0.99, 1.0, 1.0)),
        ((-0.5, 0.501, 0.001, 0.499), (0.0, 0.5, 0.01, 0.51)),
    ],
)
def test_boxes_are_those_that_an_answer_can_say(values, box):
    assert workload._on_grid(np.array(values, np.float32)).as_list() == pytest.approx(box)


def test_too_large_a_model_is_refused(monkeypatch):
    def fail(*arguments, **named):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("elysium_core.network.elysium_network.ElysiumNetwork.to_empty", fail)
    with pytest.raises(BackendError) as caught:
        workload.random_runtime(workload.SIZES["tiny"], CPU, torch.float32)
    assert caught.value.code == "MEMORY"


@pytest.mark.parametrize(("free_gib", "remedy"), [(16, "--layers 13,"), (0.5, "a smaller --size")])
def test_a_model_that_does_not_fit_is_refused_with_a_remedy(monkeypatch, free_gib, remedy):
    monkeypatch.setattr(workload, "free_bytes", lambda device: int(free_gib * 2**30))
    with pytest.raises(BackendError, match=remedy) as caught:
        workload.random_runtime(workload.SIZES["paper"], CPU, torch.float32)
    assert caught.value.code == "MEMORY"
    assert "25.1 GiB" in str(caught.value)
