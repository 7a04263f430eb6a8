"""Trackers of other projects behind our protocol: OpenCV's, and tiny random models of the hub's families."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from typer.testing import CliRunner

from elysium_core.cli.app import app
from elysium_core.errors import BackendError, ConfigError, ModelFileError, TargetError
from elysium_core.evaluation.peers import is_peer
from elysium_core.evaluation.peers_hf import HfModel, parse_written_box
from elysium_core.evaluation.peers_opencv import OpenCvModel, opencv_trackers
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.types import TrackingConfig, TrackState

# A box that stays at the start overlaps the target of frame 7 by 0.07.
START = Box.from_xywh_px(20, 20, 24, 24, 160, 120)


def moving_target(count=8):
    """Frames with a checkered square that moves 3 px right a frame over noise."""
    noise = np.random.default_rng(0).integers(60, 90, (120, 160, 3), dtype=np.uint8)
    pattern = np.kron([[255, 0], [0, 255]], np.ones((12, 12)))[..., None].astype(np.uint8)
    for index in range(count):
        image = noise.copy()
        image[20:44, 20 + 3 * index : 44 + 3 * index] = pattern
        yield Frame(image, index=index)


class TestOpenCv:
    @pytest.fixture
    def model(self):
        if "MIL" not in opencv_trackers():
            pytest.skip("this OpenCV ships no MIL tracker")
        return OpenCvModel("MIL")

    def test_it_follows_a_moving_target(self, model):
        tracker = model.tracker(config=TrackingConfig(max_targets=1))
        assert tracker.add(box=START) == "1"
        updates = [tracker.step(frame)[0] for frame in moving_target()]
        assert updates[0].box == START
        assert [u.frame_index for u in updates] == list(range(8))
        assert updates[-1].box.iou(Box.from_xywh_px(41, 20, 24, 24, 160, 120)) > 0.3

    def test_a_box_added_later_speaks_about_the_frame_just_seen(self, model):
        frames = list(moving_target(3))
        tracker = model.tracker()
        tracker.step(frames[0])
        tracker.add(box=START)
        (update,) = tracker.step(frames[1])
        assert update.age == 1
        assert update.box is not None

    def test_ids_removal_and_limits(self, model):
        tracker = model.tracker(config=TrackingConfig(max_targets=2))
        first = tracker.add(box=START)
        tracker.add(box=START)
        with pytest.raises(TargetError, match="already 2 targets"):
            tracker.add(box=START)
        tracker.remove(first)
        states = {u.target_id: u.state for u in tracker.step(next(moving_target()))}
        assert states == {"1": TrackState.REMOVED, "2": TrackState.TRACKED}
        assert tracker.target_ids == ["2"]
        with pytest.raises(TargetError, match="no target '1'"):
            tracker.remove(first)
        tracker.reset()
        assert tracker.add(box=START) == "3", "ids are not reused"

    @pytest.mark.parametrize("box", [Box(0.999, 0.999, 1, 1), Box(0, 0, 1, 1), Box(0.2, 0, 0.8, 1)])
    def test_a_box_without_room_for_samples_is_a_failure_and_not_an_endless_search(self, model, box):
        tracker = model.tracker()
        tracker.add(box=box)
        first, second = (tracker.step(frame)[0] for frame in moving_target(2))
        assert first.box == box
        assert (second.box, second.state) == (None, TrackState.LOST)
        assert second.reason == "OpenCV could not start with a box of this size"

    def test_words_are_refused_in_one_sentence(self, model):
        with pytest.raises(TargetError, match="from a box, not from words"):
            model.tracker().add("the square")
        for call in (
            lambda: model.ground(next(moving_target()), "x"),
            lambda: model.describe(next(moving_target()), START),
            lambda: model.ask(next(moving_target()), "x?"),
            lambda: model.caption(next(moving_target())),
        ):
            with pytest.raises(BackendError, match="opencv:MIL cannot do this; it follows boxes"):
                call()

    def test_unknown_trackers_are_refused_with_the_list(self):
        with pytest.raises(BackendError, match=r"ships no tracker 'SIFT' .* it has .*MIL"):
            OpenCvModel("SIFT")

    def test_trackers_that_need_weights_are_not_offered(self):
        assert not {"Vit", "Nano", "DaSiamRPN", "GOTURN"} & set(opencv_trackers())


def test_models_of_other_projects_are_told_by_their_names():
    assert is_peer("opencv:MIL")
    assert is_peer("hf:some/model")
    assert not is_peer("nano")
    assert not is_peer("some/folder")


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("[250,0,500,1000]", (0.25, 0, 0.5, 1)),
        ("It is at [ 250.0 , 0, 500, 1000 ].", (0.25, 0, 0.5, 1)),
        ("<|box_start|>(250,0),(500,1000)<|box_end|>", (0.25, 0, 0.5, 1)),
        ("{<250><0><500><1000>}", (0.25, 0, 0.5, 1)),
        ("mug<loc_250><loc_0><loc_500><loc_1000>", (0.25, 0, 0.5, 1)),
        ("[0,0,10,10] or [250,0,500,1000]", (0, 0, 0.01, 0.01)),
        ("(1,2),(3,4) then [5,6,7,8]", (0.001, 0.002, 0.003, 0.004)),
        ("no idea", None),
        ("[500,0,250,1000]", None),
        ("[0,0,500,2000]", None),
        ("[1,2,3]", None),
        ("[1,2,3,4,5]", None),
        ("", None),
    ],
)
def test_boxes_as_other_models_write_them(text, box):
    assert parse_written_box(text, 1000) == (None if box is None else Box(*box))


@pytest.fixture(scope="module")
def detector_folder(tmp_path_factory):
    """A random Grounding DINO of 130,000 weights."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("detector")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "the", "white", "square"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    torch.manual_seed(0)
    config = transformers.GroundingDinoConfig(
        backbone_config=transformers.SwinConfig(
            image_size=64,
            embed_dim=8,
            depths=[1] * 4,
            num_heads=[1] * 4,
            window_size=2,
            out_features=["stage2", "stage3", "stage4"],
        ),
        text_config=transformers.BertConfig(
            vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
        ),
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=5,
        num_feature_levels=3,
        max_text_len=16,
    )
    transformers.GroundingDinoForObjectDetection(config).save_pretrained(folder)
    images = transformers.GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    tokenizer = transformers.BertTokenizer(str(folder / "vocab.txt"))
    transformers.GroundingDinoProcessor(images, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def writer_folder(tmp_path_factory):
    """A random LLaVA of 27,000 weights with a byte tokenizer."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("writer")
    special = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = Tokenizer(models.BPE({t: i for i, t in enumerate(special + alphabet)}, [], unk_token="<unk>"))
    tokens.pre_tokenizer, tokens.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokens,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
    )
    small = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(vocab_size=len(tokenizer), num_hidden_layers=1, **small),
        vision_config=transformers.CLIPVisionConfig(num_hidden_layers=2, image_size=32, patch_size=16, **small),
        image_token_index=4,
    )
    transformers.LlavaForConditionalGeneration(config).save_pretrained(folder)
    images = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    template = (
        "{% for m in messages %}{% for c in m.content %}"
        "{% if c.type == 'image' %}<image>{% else %}{{ c.text }}{% endif %}{% endfor %}{% endfor %}"
    )
    transformers.LlavaProcessor(
        images,
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    ).save_pretrained(folder)
    return folder


class TestHub:
    def test_a_detector_answers_with_its_best_box(self, detector_folder):
        model = HfModel(str(detector_folder), "cpu")
        frame = next(moving_target())
        found = model.ground(frame, "the white square")
        assert isinstance(found.box, Box)
        assert 0 < found.score <= 1
        assert model.info.parameters > 100_000
        tracker = model.tracker()
        tracker.add("the white square")
        (update,) = tracker.step(frame)
        assert update.box == found.box

    def test_a_writing_model_is_asked_and_its_answer_parsed(self, writer_folder, monkeypatch):
        model = HfModel(f"{writer_folder}?scale=100", "cpu")
        tracker = model.tracker()
        tracker.add("the white square")
        frame = next(moving_target())
        (update,) = tracker.step(frame)
        # Random weights write no box: a counted failure, not an exception.
        assert (update.state, update.reason) == (TrackState.LOST, "no box in the answer")
        assert tracker.stats.parse_failures == {"no box in the answer": 1}
        monkeypatch.setattr(model._grounder._processor, "decode", lambda *a, **k: "at [25,0,50,100].")
        (update,) = tracker.step(frame)
        assert update.box == Box(0.25, 0, 0.5, 1)
        assert tracker.stats.parse_failures == {"no box in the answer": 1}

    def test_a_writing_model_describes_from_the_frame_of_the_box_and_answers_from_the_middle_one(
        self, writer_folder, monkeypatch
    ):
        model, frames, asked = HfModel(f"{writer_folder}?scale=100", "cpu"), list(moving_target())[:5], []
        assert model.info.describes == "frame"
        assert model.ask(frames[0], "what moves?") == model.ask([frames[0]], "what moves?"), "greedy"
        monkeypatch.setattr(
            model._grounder,
            "_generated",
            lambda image, question, special: asked.append((image, question)) or " a\n cup ",
        )
        assert model.describe(frames, Box(0.25, 0, 0.5, 1), 3) == "a cup"
        assert model.ask(frames, "what  moves?") == "a cup"
        assert [frame.index for image, _ in asked for frame in frames if image is frame.image] == [3, 2]
        assert "[25, 0, 50, 100]" in asked[0][1]
        assert asked[1][1] == "what moves?"

    def test_one_command_compares_it_on_own_recordings(self, detector_folder, writer_folder, make_recording, tmp_path):
        data, out = make_recording(), tmp_path / "run"
        words = ["folder", "--data", data, "--task", "rsot", "--device", "cpu", "--out", out, "--json"]
        peers = ["-m", "identity", "-m", f"hf:{detector_folder}", "-m", f"hf:{writer_folder}?scale=100"]
        result = CliRunner().invoke(app, ["eval", *map(str, words), *peers], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        scores = json.loads(result.stdout)["protocols"]["ope-lasot"]
        assert [name.partition(":")[0] for name in scores][:3] == ["identity", "hf", "hf"]
        assert scores[peers[5]]["auc"] == 0.0, "random weights write no box"
        assert scores["perfect"]["auc"] == pytest.approx(20 / 21)
        report = (out / "report.md").read_text()
        assert "no box in the answer" in report

    def test_a_box_alone_is_refused(self, detector_folder):
        model = HfModel(str(detector_folder), "cpu")
        with pytest.raises(TargetError, match="needs words for its target; use --task rsot"):
            model.tracker().add(box=START)
        with pytest.raises(BackendError, match="it only grounds words"):
            model.ask(next(moving_target()), "what?")

    def test_models_that_are_missing_unsafe_or_of_another_kind(self, tmp_path, detector_folder):
        with pytest.raises(ModelFileError, match="no model folder"):
            HfModel(f"{tmp_path}/none", "cpu")
        with pytest.raises(ModelFileError, match="in the local cache; give a folder, or: elysium pull nobody/nothing"):
            HfModel("nobody/nothing", "cpu")
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
        with pytest.raises(BackendError, match="type 'bert'"):
            HfModel(str(tmp_path), "cpu")
        (tmp_path / "config.json").write_text((detector_folder / "config.json").read_text())
        (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
        with pytest.raises(ModelFileError):
            HfModel(str(tmp_path), "cpu")

    @pytest.mark.parametrize("name", ["x?scale=0", "x?scale=big", "x?other=1", ""])
    def test_misspelt_names(self, name):
        with pytest.raises(ConfigError, match="is not hf:ID"):
            HfModel(name, "cpu")
