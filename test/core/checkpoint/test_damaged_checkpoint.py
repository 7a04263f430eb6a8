"""Damaged, unsafe and incomplete checkpoints: refused in one sentence, before anything is built or run."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from elysium_core.api import Elysium
from elysium_core.checkpoint.checkpoint import load_checkpoint
from elysium_core.checkpoint.convert_pickled import torch_is_safe
from elysium_core.errors import ElysiumError, ModelFileError
from elysium_core.prompt.tokenizer import TextTokenizer

GATE = "adapter.trans_weight"


def refuse(folder, *parts, code="MODEL_FILE", **options):
    """Loading fails in one sentence that holds ``parts``."""
    with pytest.raises(ModelFileError) as caught:
        load_checkpoint(folder, **options)
    message = str(caught.value)
    assert caught.value.code == code, message
    assert "\n" not in message
    for part in parts:
        assert str(part) in message
    return message


def header_length(raw):
    return struct.unpack("<Q", raw[:8])[0]


# Weight files.


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[:4],
        lambda raw: raw[:100],
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:-1],
        lambda raw: raw + b"\0",
        lambda raw: struct.pack("<Q", 1 << 62) + raw[8:],
        lambda raw: struct.pack("<Q", header_length(raw) + 8) + raw[8:],
        lambda raw: raw[:8] + b"[" * header_length(raw) + raw[8 + header_length(raw) :],
        lambda raw: raw.replace(b'"F32"', b'"F99"', 1),
        lambda raw: b"\x80\x04" + raw[2:],
    ],
    ids=["empty", "4 bytes", "100 bytes", "half", "one less", "one more", "huge", "long", "nested", "type", "pickle"],
)
def test_a_damaged_weight_file(folder, damage):
    path = folder / "model.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    refuse(folder, path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(data=st.data())
def test_any_byte_of_the_header_may_be_wrong(folder, published, data):
    """Whatever the header says, loading ends in an error of ours or in a model of the right shape."""
    raw = bytearray((published / "model.safetensors").read_bytes())
    place = data.draw(st.integers(0, 8 + header_length(raw) - 1))
    raw[place] = data.draw(st.integers(0, 255))
    (folder / "model.safetensors").write_bytes(raw)
    try:
        load_checkpoint(folder)
    except ElysiumError as error:
        assert error.code == "MODEL_FILE"


def test_a_missing_tensor_is_named(folder, edit_weights):
    edit_weights(lambda key, value: {} if key in (GATE, "llm.model.norm.weight") else {key: value})
    refuse(folder, "lack", GATE, "llm.model.norm.weight")


def test_many_missing_tensors_are_counted(folder, edit_weights):
    edit_weights(lambda key, value: {} if key.startswith("visual_encoder") else {key: value})
    refuse(folder, "lack visual_encoder.", "more")


def test_a_wrong_shape_is_named_with_both_shapes(folder, edit_weights):
    edit_weights(lambda key, value: {key: value[:, :-1].contiguous() if key == GATE else value})
    refuse(folder, f"{GATE} [16, 15] instead of [16, 16]")


def test_a_config_that_does_not_fit_the_weights(folder, edit_json):
    edit_json(folder / "language" / "config.json", intermediate_size=64)
    refuse(folder, "do not fit", "llm.model.layers.0.mlp.gate_proj.weight [48, 32] instead of [64, 32]")


def test_integer_weights_are_refused(folder, edit_weights):
    edit_weights(lambda key, value: {key: value.to(torch.int8) if key == GATE else value})
    refuse(folder, GATE, "I8")


def test_one_tensor_in_two_files(folder):
    save_file({GATE: torch.ones(16, 16)}, folder / "model-extra.safetensors")
    (folder / "model.safetensors").rename(folder / "model-first.safetensors")
    refuse(folder, GATE, "model-extra.safetensors", "model-first.safetensors")


def test_a_tensor_under_its_old_and_new_name(folder, edit_weights):
    key = "visual_encoder.vision_model.pre_layrnorm.bias"
    edit_weights(lambda k, value: {k: value, k.replace("vision_model.", ""): value.clone()} if k == key else {k: value})
    refuse(folder, "pre_layrnorm.bias", "model.safetensors")


def test_no_weights_at_all(folder):
    (folder / "model.safetensors").unlink()
    refuse(folder, "holds no weights")


def test_weights_that_are_a_folder(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    refuse(folder, "holds no weights")


# The index of shards.


@pytest.fixture
def sharded(folder):
    """The checkpoint with its one weight file behind an index; call it with the names of the shards."""
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")

    def _index(*names):
        places = {f"key {number}": name for number, name in enumerate(names)}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
        return folder

    return _index


def test_an_index_is_followed(sharded):
    load_checkpoint(sharded("model-00001-of-00001.safetensors"))


def test_a_missing_shard_is_named(sharded):
    refuse(sharded("model-00001-of-00001.safetensors", "model-00002.safetensors"), "model-00002.safetensors", "missing")


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a/../../x", "", "a\0b", "..", 7, None])
def test_an_index_may_not_lead_out_of_the_folder(sharded, name):
    refuse(sharded(name), "index.json")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": ["a"]}', "[" * 100_000, "\xff"]
)
def test_a_damaged_index(sharded, text):
    folder = sharded()
    (folder / "model.safetensors.index.json").write_bytes(text.encode("latin-1"))
    refuse(folder, "model.safetensors.index.json")


def test_a_link_out_of_the_folder(folder, tmp_path):
    (folder / "model.safetensors").rename(tmp_path / "elsewhere.safetensors")
    (folder / "model.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    refuse(folder, "is a link out of its folder")


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "llm/config.json",
        "vision/config.json",
        "llm/tokenizer.json",
        "llm/tokenizer_config.json",
        "llm/special_tokens_map.json",
        "llm/vocab.json",
        "SHA256SUMS",
    ],
)
@pytest.mark.parametrize("circle", [False, True])
def test_a_settings_file_that_is_a_link_out_of_the_folder_is_refused(tiny_folder, tmp_path, name, circle):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    outside = tmp_path / "outside"
    if (folder / name).exists():
        (folder / name).rename(outside)
    else:
        outside.write_text("{}")
    (folder / name).symlink_to(folder / name if circle else outside)
    with pytest.raises(ModelFileError) as caught:
        Elysium.from_pretrained(folder, device="cpu", vision_backend="torch")
    assert Path(name).name in str(caught.value)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "language/config.json", "language/tokenizer.json"]
)
def test_links_inside_the_folder_and_to_the_folder_are_fine(folder, tmp_path, name):
    (folder / name).rename((folder / name).with_name("content.bytes"))
    (folder / name).symlink_to("content.bytes")
    (tmp_path / "link").symlink_to(folder)
    TextTokenizer.from_folder(load_checkpoint(tmp_path / "link").llm_folder)


def test_settings_of_a_base_model_may_lie_elsewhere_in_the_checkpoint(folder):
    (folder / "language" / "config.json").rename(folder / "llm.json")
    (folder / "language" / "config.json").symlink_to("../llm.json")
    load_checkpoint(folder)


# The manifest.


@pytest.fixture
def signed(folder):
    """The checkpoint with a manifest of its weights and its config."""
    import hashlib

    names = ("model.safetensors", "config.json")
    lines = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(lines))
    load_checkpoint(folder)
    return folder


def flip_last_bit(path):
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)


def test_one_flipped_bit_is_found(signed):
    flip_last_bit(signed / "model.safetensors")
    refuse(signed, "model.safetensors", "SHA256SUMS", code="MODEL_HASH")
    load_checkpoint(signed, verify_hashes=False)


def test_a_manifest_may_come_from_elsewhere(signed, tmp_path):
    manifest = tmp_path / "trusted"
    (signed / "SHA256SUMS").rename(manifest)
    load_checkpoint(signed, manifest=manifest)
    flip_last_bit(signed / "model.safetensors")
    refuse(signed, "model.safetensors", manifest=manifest, code="MODEL_HASH")


def test_a_listed_file_is_missing(signed):
    with (signed / "SHA256SUMS").open("a") as manifest:
        manifest.write(f"{'0' * 64}  language/gone.json\n")
    refuse(signed, "language/gone.json", code="MODEL_HASH")


def test_a_listed_graph_may_be_missing_but_not_damaged(signed):
    with (signed / "SHA256SUMS").open("a") as manifest:
        manifest.write(f"{'0' * 64}  vision.onnx\n{'0' * 64}  vision.engine\n")
    load_checkpoint(signed)
    (signed / "vision.engine").write_bytes(b"a program")
    refuse(signed, "vision.engine", code="MODEL_HASH")


def test_a_listed_file_that_is_a_link_out_of_the_folder(signed, tmp_path):
    (tmp_path / "away").write_text("secret")
    (signed / "notes").symlink_to(tmp_path / "away")
    with (signed / "SHA256SUMS").open("a") as manifest:
        manifest.write(f"{'0' * 64}  notes\n")
    refuse(signed, "lists notes", "link out of its folder", code="MODEL_HASH")


def test_weights_that_are_not_listed(signed):
    path = signed / "SHA256SUMS"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if "config" in line))
    refuse(signed, "does not list model.safetensors", code="MODEL_HASH")


@pytest.mark.parametrize("line", ["hello", f"{'0' * 63}  a", f"{'0' * 64}  ../a", f"{'0' * 64}  /etc/passwd", "\0"])
def test_a_damaged_manifest(signed, line):
    (signed / "SHA256SUMS").write_text(line + "\n")
    refuse(signed, "SHA256SUMS, line 1")


def test_names_in_a_manifest_may_begin_as_find_writes_them(signed):
    path = signed / "SHA256SUMS"
    path.write_text(path.read_text().replace("  ", "  ./"))
    load_checkpoint(signed)
    flip_last_bit(signed / "model.safetensors")
    refuse(signed, "model.safetensors", "SHA256SUMS", code="MODEL_HASH")


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere")])
def test_a_manifest_that_cannot_be_read_is_not_taken_for_none(signed, make):
    (signed / "SHA256SUMS").unlink()
    make(signed / "SHA256SUMS")
    refuse(signed, "cannot read", "SHA256SUMS")


def test_a_manifest_that_does_not_exist(folder, tmp_path):
    refuse(folder, tmp_path / "nothing", manifest=tmp_path / "nothing")


# Pickles and code.


class Touch:
    """Unpickled without care, it makes a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def poisoned(folder, tmp_path):
    """A checkpoint whose weights are a pickle that would make ``marker``."""
    (folder / "model.safetensors").unlink()
    marker = tmp_path / "marker"
    torch.save({"weights": Touch(marker)}, folder / "pytorch_model.bin")
    return folder, marker


def test_a_pickle_that_runs_code_never_does(poisoned):
    folder, marker = poisoned
    refuse(folder, "pytorch_model.bin", code="MODEL_UNSAFE")
    message = refuse(folder, "pytorch_model.bin", code="MODEL_UNSAFE", allow_pickle_weights=True)
    assert "weights_only" in message or "Unsupported" in message
    assert not marker.exists()
    pickle.loads(pickle.dumps(Touch(marker)))
    assert marker.exists()  # the trap does work


def test_a_torch_with_known_holes_reads_no_pickle(poisoned, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.9.1+cu128")
    refuse(poisoned[0], "2.9.1", "2.10", code="MODEL_UNSAFE", allow_pickle_weights=True)


@pytest.mark.parametrize(
    ("version", "safe"), [("2.5.1", False), ("2.9.1+cpu", False), ("2.10.0", True), ("2.13.0+cpu", True), ("3.0", True)]
)
def test_which_torch_is_safe(version, safe):
    assert torch_is_safe(version) is safe


@pytest.mark.parametrize("file", ["config.json", "llm/config.json", "vision/config.json", "llm/tokenizer_config.json"])
def test_a_pipe_or_a_huge_file_in_a_setting_s_place_is_refused_and_not_read(tiny_folder, tmp_path, file):
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    (folder / "SHA256SUMS").unlink()
    for replace, said in ((os.mkfifo, "not a regular file"), (huge, "more than")):
        (folder / file).unlink()
        replace(folder / file)
        with pytest.raises(ModelFileError, match=said) as caught:
            Elysium.from_pretrained(folder, device="cpu", vision_backend="torch")
        assert file.rpartition("/")[2] in str(caught.value)


def huge(path):
    """A file that says it has 300 MB, of which none are on the disk."""
    path.touch()
    os.truncate(path, 300 << 20)


@pytest.mark.parametrize("file", ["config.json", "eyes/config.json", "language/config.json"])
def test_code_named_by_a_config_is_never_run(folder, edit_json, file, monkeypatch):
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    monkeypatch.syspath_prepend(str(folder))
    edit_json(folder / file, auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"})
    refuse(folder, file, "auto_map", code="MODEL_UNSAFE")
    assert "evil" not in sys.modules


def test_the_published_config_names_code_that_is_known_and_left_alone(folder, edit_json):
    (folder / "modeling_elysium.py").write_text("raise SystemExit('ran')")
    published = {
        "AutoConfig": "modeling_elysium.ElysiumConfig",
        "AutoModelForCausalLM": "modeling_elysium.ElysiumForCausalLM",
    }
    edit_json(folder / "config.json", auto_map=published)
    load_checkpoint(folder)
    edit_json(folder / "config.json", auto_map=published | {"AutoTokenizer": "modeling_elysium.Tokenizer"})
    refuse(folder, "auto_map", code="MODEL_UNSAFE")
    assert "modeling_elysium" not in sys.modules
