"""Which folders are loaded as Qwen-VL models, and what is refused with which code."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from elysium_core.api import Elysium
from elysium_core.errors import BackendError, ConfigError, ElysiumError, ModelFileError
from elysium_core.families.qwen_loader import load_processor


@pytest.fixture
def copied(qwen_folders, tmp_path):
    return shutil.copytree(qwen_folders["qwen3_vl"], tmp_path / "model")


def refused(folder, error, **options) -> ElysiumError:
    with pytest.raises(error) as caught:
        Elysium.from_pretrained(folder, device="cpu", **options)
    return caught.value


@pytest.mark.parametrize("kind", ["qwen3_vl", "qwen2_5_vl"])
def test_what_is_loaded_is_told(qwen_models, qwen_folders, kind):
    info = qwen_models[kind].info
    stored = sum(value.numel() for value in load_file(qwen_folders[kind] / "model.safetensors").values())
    assert (info.name, info.parameters) == (str(qwen_folders[kind]), stored)
    assert (info.device, info.precision, info.backend, len(info.weights)) == ("cpu", "float32", "torch", 12)
    assert info.coordinate_levels == (1000 if kind == "qwen3_vl" else 0)
    assert qwen_models[kind].runtime.family.decoder.description.startswith("eager")


def test_half_precision_is_kept(copied):
    model = Elysium.from_pretrained(copied, device="cpu", dtype="bfloat16")
    assert model.info.precision == "bfloat16"
    assert model.runtime.family.decoder.new_cache(1).memory.keys.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "preprocessor_config.json", "model.safetensors"])
def test_a_missing_file_is_named(copied, name):
    (copied / name).unlink()
    # Without config.json the folder is nobody's; without a tokenizer no other one is made up.
    assert name.partition(".")[0].removesuffix("_config") in str(refused(copied, ModelFileError))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_damaged_file_is_an_error_of_one_sentence(copied, name):
    content = (copied / name).read_bytes()
    (copied / name).write_bytes(content[: len(content) // 2])
    error = refused(copied, ModelFileError)
    assert len(str(error).splitlines()) == 1


def test_pickled_weights_are_not_read(copied):
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    assert "safetensors" in str(refused(copied, ModelFileError, allow_pickle_weights=True))


def test_code_is_never_run(copied, edit_json):
    edit_json(copied / "config.json", auto_map={"AutoModel": "evil.Evil"})
    assert refused(copied, ModelFileError).code == "MODEL_UNSAFE"


def test_quantised_weights_are_refused(copied, edit_json):
    edit_json(copied / "config.json", quantization_config={"quant_method": "fp8"})
    assert "quantised" in str(refused(copied, ModelFileError))


def test_missing_weights_are_named(copied):
    path = copied / "model.safetensors"
    weights = load_file(path)
    gone = "model.language_model.layers.1.mlp.up_proj.weight"
    save_file({name: value for name, value in weights.items() if name != gone}, path, {"format": "pt"})
    assert gone in str(refused(copied, ModelFileError))


def test_files_are_compared_with_their_checksums(copied):
    (copied / "SHA256SUMS").write_text(f"{'0' * 64}  model.safetensors\n", encoding="utf-8")
    assert refused(copied, ModelFileError).code == "MODEL_HASH"


def test_a_tokenizer_of_another_model_is_refused(copied):
    path = copied / "tokenizer.json"
    text = path.read_text(encoding="utf-8").replace("<|vision_start|>", "<|something|>")
    path.write_text(text, encoding="utf-8")
    assert "'<|vision_start|>'" in str(refused(copied, ModelFileError))


@pytest.mark.parametrize(
    ("options", "error", "value"),
    [
        ({"quantization": "nf4"}, BackendError, "nf4"),
        ({"vision_backend": "onnx"}, BackendError, "onnx"),
        ({"max_pixels": 100}, ConfigError, "100"),
        ({"max_pixels": -1}, ConfigError, "-1"),
        ({"max_pixels": 1 << 30}, ConfigError, str(1 << 30)),
        ({"dtype": "float8"}, BackendError, "float8"),
    ],
)
def test_options_that_cannot_be_used_are_named(qwen_folders, options, error, value):
    assert value in str(refused(qwen_folders["qwen3_vl"], error, **options))


def test_too_little_memory_is_said_before_weights_are_read(qwen_folders, monkeypatch):
    monkeypatch.setattr("elysium_core.families.qwen_loader.free_bytes", lambda device: 1000)
    assert refused(qwen_folders["qwen3_vl"], ModelFileError).code == "MODEL_MEMORY"


def test_the_processor_of_a_newer_layout_is_read(copied):
    """transformers 5 writes the image processor's settings into processor_config.json."""
    old = copied / "preprocessor_config.json"
    settings = json.loads(old.read_text(encoding="utf-8"))
    (copied / "processor_config.json").write_text(json.dumps({"image_processor": settings}), encoding="utf-8")
    old.unlink()
    model = Elysium.from_pretrained(copied, device="cpu")
    assert model.runtime.family.side_px == 544, "640x480 px at most"


def test_limits_of_pixels_in_the_older_form_are_read(copied, edit_json):
    path = copied / "preprocessor_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    del settings["size"]
    path.write_text(json.dumps(settings | {"min_pixels": 3136, "max_pixels": 40_000}), encoding="utf-8")
    size = load_processor(copied, 0).size
    assert (size["shortest_edge"], size["longest_edge"]) == (3136, 40_000), "no image is larger than in training"
