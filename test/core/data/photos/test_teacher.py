from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from elysium_core.data.photos.photo_records import PhotoObject
from elysium_core.data.photos.photo_report import PhotoReport, Skipped
from elysium_core.data.photos.photo_set import PhotoSet
from elysium_core.data.photos.teacher_detectors import COCO_NAMES, YoloxDetector, ZeroShotDetector
from elysium_core.data.photos.teacher_run import label_photos
from elysium_core.errors import BackendError, ConfigError, DataError, ModelFileError
from elysium_core.geometry import Box
from elysium_core.io.image import write_image

SCRIPT = Path(__file__).parents[4] / "training" / "teacher_boxes.py"
SIDE, CELLS = 64, 8 * 8 + 4 * 4 + 2 * 2
NAMES = ("cat", "dog")


def logarithm(pixels: float, stride: int) -> float:
    return float(np.log(pixels / stride))


def save_graph(path: Path, output: np.ndarray, side: int = SIDE, channels: int = 3) -> Path:
    """Write a graph in YOLOX's form whose answer is the same for every picture, plus 0 times its mean."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    make, types = onnx.helper, onnx.TensorProto
    nodes = [
        make.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        make.make_node("Mul", ["mean", "zero"], ["nothing"]),
        make.make_node("Add", ["answer", "nothing"], ["output"]),
    ]
    constants = [
        onnx.numpy_helper.from_array(output.astype(np.float32)[None], "answer"),
        onnx.numpy_helper.from_array(np.zeros((), np.float32), "zero"),
    ]
    graph = make.make_graph(
        nodes,
        "yolox",
        [make.make_tensor_value_info("images", types.FLOAT, [1, channels, side, side])],
        [make.make_tensor_value_info("output", types.FLOAT, [1, *output.shape])],
        constants,
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return path


def answer(*cells) -> np.ndarray:
    """Rows of an output: ``(row, x, y, width, height, objectness, class scores...)`` with sizes in px of the input."""
    output = np.zeros((CELLS, 5 + len(NAMES)))
    for row, x, y, width, height, *scores in cells:
        stride, first, count = (8, 0, 8) if row < 64 else (16, 64, 4)
        line, column = divmod(row - first, count)
        output[row, :4] = x / stride - column, y / stride - line, logarithm(width, stride), logarithm(height, stride)
        output[row, 4:] = scores
    return output


@pytest.fixture
def detector(tmp_path):
    output = answer(
        (9, 20.0, 12.0, 16.0, 8.0, 0.9, 0.1, 1.0),  # a dog at 12..28, 8..16
        (10, 21.0, 12.0, 16.0, 8.0, 0.8, 0.1, 1.0),  # the same dog again
        (70, 40.0, 28.0, 32.0, 16.0, 0.8, 1.0, 0.0),  # a cat at 24..56, 20..36: over the lower edge of the picture
        (11, 20.0, 12.0, 16.0, 8.0, 0.2, 1.0, 1.0),  # unsure
        (63, 60.0, 60.0, 6.0, 6.0, 0.9, 1.0, 0.0),  # in the gray part below the picture
    )
    return YoloxDetector(save_graph(tmp_path / "yolox.onnx", output), NAMES)


class TestYolox:
    def test_boxes_are_read_in_the_pictures_fractions(self, detector):
        # 128 x 64 px fill the upper half of the input at half their size.
        found = detector.detect(np.zeros((64, 128, 3), np.uint8))
        assert [(item.name, round(item.score, 3)) for item in found] == [("dog", 0.9), ("cat", 0.8)]
        assert found[0].box.to_px(128, 64) == pytest.approx((24, 16, 56, 32), abs=0.01)
        assert found[1].box.to_px(128, 64) == pytest.approx((48, 40, 112, 64), abs=0.01)

    def test_the_picture_reaches_the_graph_as_yolox_wants_it(self, detector, monkeypatch):
        seen = {}
        run = detector._session.run
        monkeypatch.setattr(
            detector,
            "_session",
            type("Spy", (), {"run": lambda _, names, feed: seen.update(feed) or run(names, feed)})(),
        )
        picture = np.zeros((64, 128, 3), np.uint8)
        picture[..., 0] = 200
        detector.detect(picture)
        (given,) = seen.values()
        assert given[0, :, 10, 10].tolist() == [0, 0, 200]  # BGR
        assert given[0, :, 50, 10].tolist() == [114, 114, 114]

    @pytest.mark.parametrize(
        ("change", "error"),
        [
            ({"output": np.zeros((CELLS, 6))}, ConfigError),
            ({"output": np.zeros((CELLS + 1, 7))}, BackendError),
            ({"output": np.zeros((CELLS, 7)), "channels": 1}, BackendError),
            ({"output": np.zeros((CELLS, 7)), "side": 60}, BackendError),
        ],
    )
    def test_other_graphs_are_refused(self, tmp_path, change, error):
        with pytest.raises(error):
            YoloxDetector(save_graph(tmp_path / "x.onnx", **change), NAMES)

    def test_a_file_that_is_no_graph_is_refused(self, tmp_path):
        pytest.importorskip("onnxruntime")
        (tmp_path / "x.onnx").write_bytes(b"nothing")
        with pytest.raises(BackendError, match=r"x\.onnx"):
            YoloxDetector(tmp_path / "x.onnx", NAMES)
        with pytest.raises(BackendError, match=r"there is no"):
            YoloxDetector(tmp_path / "none.onnx", NAMES)

    def test_cocos_names_are_eighty(self):
        assert len(set(COCO_NAMES)) == 80
        assert (COCO_NAMES[0], COCO_NAMES[16], COCO_NAMES[79]) == ("person", "dog", "toothbrush")
        assert all(name == " ".join(name.split()) for name in COCO_NAMES)


class Counting:
    """A teacher that says the same of every picture, and counts."""

    def __init__(self, name="counting", stop_after=10**6):
        self.name, self.asked, self._stop_after = name, 0, stop_after

    def detect(self, image):
        if self.asked == self._stop_after:
            raise KeyboardInterrupt
        self.asked += 1
        return [PhotoObject("dog", Box(0.1, 0.2, 0.6, 0.7), score=0.81234)]


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(6):
        write_image(folder / f"{number}.png", np.full((48, 64, 3), 20 * number, np.uint8))
    return folder


class TestRun:
    def test_the_file_is_what_the_reader_reads(self, pictures, tmp_path):
        out = tmp_path / "out" / "teacher.jsonl"
        assert list(label_photos(Counting(), pictures, out, PhotoReport()))[-1] == (6, 6)
        line = json.loads(out.read_text().splitlines()[0])
        assert line == {
            "image": "0.png",
            "width": 64,
            "height": 48,
            "teacher": "counting",
            "boxes": [{"name": "dog", "box": [0.1, 0.2, 0.6, 0.7], "score": 0.8123}],
        }
        photos = PhotoSet.open([pictures], [out])
        assert (len(photos), len(photos.objects), photos.names) == (6, 6, ("dog",))

    def test_a_stopped_run_goes_on_where_it_was(self, pictures, tmp_path):
        out = tmp_path / "teacher.jsonl"
        with pytest.raises(KeyboardInterrupt):
            list(label_photos(Counting(stop_after=3), pictures, out, PhotoReport()))
        assert not out.exists()
        partial = tmp_path / "teacher.jsonl.partial"
        partial.write_text(partial.read_text() + '{"image": "3.png", "wid')  # killed in the middle of a line
        teacher = Counting()
        list(label_photos(teacher, pictures, out, PhotoReport()))
        assert teacher.asked == 3
        assert [json.loads(line)["image"] for line in out.read_text().splitlines()] == [f"{n}.png" for n in range(6)]
        assert not partial.exists()

    def test_a_run_of_another_teacher_is_not_mixed_in(self, pictures, tmp_path):
        out = tmp_path / "teacher.jsonl"
        with pytest.raises(KeyboardInterrupt):
            list(label_photos(Counting(stop_after=2), pictures, out, PhotoReport()))
        with pytest.raises(DataError, match="'counting', not 'other'"):
            list(label_photos(Counting("other"), pictures, out, PhotoReport()))

    def test_a_finished_file_is_never_overwritten(self, pictures, tmp_path):
        (tmp_path / "mine.jsonl").write_text("mine")
        with pytest.raises(DataError, match="exists already"):
            list(label_photos(Counting(), pictures, tmp_path / "mine.jsonl", PhotoReport()))

    def test_unreadable_pictures_are_counted(self, pictures, tmp_path):
        (pictures / "x.png").write_bytes(b"broken")
        report = PhotoReport()
        list(label_photos(Counting(), pictures, tmp_path / "t.jsonl", report))
        assert report.count(Skipped.UNREADABLE) == 1
        assert len((tmp_path / "t.jsonl").read_text().splitlines()) == 6

    def test_the_script_labels_a_folder(self, pictures, tmp_path, monkeypatch, capsys):
        graph = save_graph(tmp_path / "yolox.onnx", answer((9, 20.0, 12.0, 16.0, 8.0, 0.9, 0.0, 1.0)))
        (tmp_path / "names.txt").write_text("cat\ndog\n")
        # In this process, which has torch and transformers; test_photo_data_script.py starts a script as a user does.
        command = [SCRIPT, pictures, "--onnx", graph, "--names", tmp_path / "names.txt", "--out", tmp_path / "t.jsonl"]
        monkeypatch.setattr(sys, "argv", [str(word) for word in command])

        def run():
            with pytest.raises(SystemExit) as ended:
                runpy.run_path(str(SCRIPT), run_name="__main__")
            return ended.value.code

        assert run() == 0, capsys.readouterr().err
        assert json.loads((tmp_path / "t.jsonl").read_text().splitlines()[5])["boxes"][0]["name"] == "dog"
        assert run() == 2
        assert "exists already" in capsys.readouterr().err


@pytest.fixture(scope="module")
def sentence_folder(tmp_path_factory):
    """A random Grounding DINO of 130,000 weights."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("sentences")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "red", "mug", "dog"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    torch.manual_seed(0)
    swin = transformers.SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1] * 4,
        num_heads=[1] * 4,
        window_size=2,
        out_features=["stage2", "stage3", "stage4"],
    )
    text = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    layers = {"encoder_layers": 1, "decoder_layers": 2, "num_queries": 5, "num_feature_levels": 3}
    config = transformers.GroundingDinoConfig(
        backbone_config=swin, text_config=text, d_model=32, max_text_len=16, **heads, **layers
    )
    transformers.GroundingDinoForObjectDetection(config).save_pretrained(folder)
    images = transformers.GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
    tokenizer = transformers.BertTokenizer(str(folder / "vocab.txt"))
    transformers.GroundingDinoProcessor(images, tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def list_folder(tmp_path_factory):
    """A random OWL-ViT with a byte tokenizer."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("lists")
    special = ["<unk>", "<pad>", "<s>", "</s>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = Tokenizer(models.BPE({t: i for i, t in enumerate(special + alphabet)}, [], unk_token="<unk>"))
    tokens.pre_tokenizer, tokens.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokens, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    tokenizer.model_max_length = 32
    small = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    torch.manual_seed(0)
    config = transformers.OwlViTConfig(
        text_config={"vocab_size": len(tokenizer), "max_position_embeddings": 32, **small},
        vision_config={"image_size": 64, "patch_size": 16, **small},
        projection_dim=16,
    )
    transformers.OwlViTForObjectDetection(config).save_pretrained(folder)
    images = transformers.OwlViTImageProcessor(size={"height": 64, "width": 64})
    transformers.OwlViTProcessor(images, tokenizer).save_pretrained(folder)
    return folder


class TestZeroShot:
    @pytest.mark.parametrize("kind", ["sentence_folder", "list_folder"])
    def test_boxes_have_the_asked_names_and_scores_above_the_least(self, request, kind):
        folder = request.getfixturevalue(kind)
        detector = ZeroShotDetector(str(folder), ["red mug", "dog"], least_score=0.01)
        found = detector.detect(np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8))
        assert found
        assert {item.name for item in found} <= {"red mug", "dog"}
        scores = [item.score for item in found]
        assert scores == sorted(scores, reverse=True)
        assert min(scores) >= 0.01
        strict = ZeroShotDetector(str(folder), ["red mug", "dog"], least_score=1.0)
        assert strict.detect(np.zeros((60, 80, 3), np.uint8)) == []

    def test_what_is_no_detector_is_refused(self, tmp_path):
        with pytest.raises(ModelFileError, match="no model"):
            ZeroShotDetector(str(tmp_path / "none"), ["dog"])
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
        with pytest.raises(BackendError, match="'bert'"):
            ZeroShotDetector(str(tmp_path), ["dog"])
        with pytest.raises(ConfigError, match="names"):
            ZeroShotDetector(str(tmp_path), [])
