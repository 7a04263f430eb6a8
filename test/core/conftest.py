"""Two tiny checkpoints of random weights: one made by this package, one in the published layout by transformers' own
models; and transformers as the judge of answers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache as cache_results
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, LlamaConfig, LlamaForCausalLM
from typer.testing import CliRunner

from elysium_core.api import Elysium
from elysium_core.checkpoint.checkpoint import load_checkpoint, save_checkpoint
from elysium_core.checkpoint.convert_pickled import convert
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.network.crop_config import CropConfig
from elysium_core.network.efficientnet import EfficientNetConfig
from elysium_core.network.elysium_network import ElysiumNetwork
from elysium_core.network.llama import LlamaSize
from elysium_core.network.model_config import AdapterConfig, ElysiumConfig
from elysium_core.prompt.box_text import format_track
from elysium_core.prompt.build_tokenizer import save_tokenizer, train_tokenizer
from elysium_core.prompt.conversation import frame_pieces, question_piece
from elysium_core.prompt.questions import PUBLISHED, fill
from elysium_core.runtime import Runtime

SIDE_PX, PATCH_PX, KEPT = 32, 8, 6
NAMES = ("mug", "apple", "teddy bear")
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": SIDE_PX,
    "patch_size": PATCH_PX,
}
LLM = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def corpus() -> list[str]:
    """Every text that tests write or read."""
    questions = [
        fill(q, expression=f"the red {name}", box="[12,34,56,78]") for q in PUBLISHED.values() for name in NAMES
    ]
    return [*frame_pieces(32, ""), format_track([Box(0.12, 0.34, 0.56, 0.78)] * 32), *map(question_piece, questions)]


def write_tiny_checkpoint(folder: Path, vocabulary: Sequence[str] = ()) -> Path:
    """Save a model of some ten thousand random weights, tokenizer and all."""
    tokenizer = train_tokenizer(corpus(), 600)
    save_tokenizer(tokenizer, folder / "llm")
    llm = {**LLM, "vocab_size": tokenizer.get_vocab_size()}
    patches = (SIDE_PX // PATCH_PX) ** 2
    config = ElysiumConfig(
        llm="llm",
        vision="vision",
        adapter=AdapterConfig(in_token_num=patches, out_token_num=KEPT, num_features=VISION["hidden_size"]),
        system_text="A chat. ",
        vocabulary=tuple(vocabulary),
    )
    torch.manual_seed(5)
    network = ElysiumNetwork(config, CLIPVisionConfig(**VISION), LlamaSize.from_dict(llm))
    for name, weight in network.named_parameters():
        # Larger than usual, so that what is written depends on all that came before.
        if weight.ndim > 1 and "embed" not in name:
            torch.nn.init.normal_(weight, std=1.6 * weight.shape[-1] ** -0.5)
    save_checkpoint(folder, network, config, llm, {"model_type": "clip_vision_model", **VISION})
    return folder


CROP_SIDE_PX, CROP_CELLS, CROP_KEPT = 64, 16, 6
CROP = CropConfig(live_px=64, anchor_px=32, live_tokens=6, anchor_tokens=3, neck=16, match=8, trunk=12, num_features=24)


def write_crop_checkpoint(folder: Path) -> Path:
    """Save a model of random weights that follows in crops: EfficientNet, both convolutional selectors, tokenizer."""
    tokenizer = train_tokenizer(corpus(), 600)
    save_tokenizer(tokenizer, folder / "llm")
    llm = {**LLM, "vocab_size": tokenizer.get_vocab_size()}
    vision = EfficientNetConfig(CROP_SIDE_PX)
    config = ElysiumConfig(
        llm="llm",
        vision="vision",
        adapter=AdapterConfig("conv_t_selector", CROP_CELLS, CROP_KEPT, 432, neck=16, out_features=24),
        system_text="A chat. ",
        crop=CROP,
        follow="crop",
    )
    torch.manual_seed(6)
    network = ElysiumNetwork(config, vision, LlamaSize.from_dict(llm))
    _draw_weights(network)
    save_checkpoint(folder, network, config, llm, vision.to_dict())
    return folder


@torch.no_grad()
def _draw_weights(module: torch.nn.Module) -> None:
    """Weights large enough for every layer to tell; and statistics of batch norms as training leaves them."""
    for name, value in module.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif name.endswith("running_mean"):
            value.normal_(std=0.3)
        elif value.ndim > 1 and "embed" not in name:
            value.normal_(std=1.6 * value[0].numel() ** -0.5)


@pytest.fixture(scope="session")
def draw_weights():
    """``draw_weights(module)`` gives a module such weights."""
    return _draw_weights


@pytest.fixture(scope="session")
def crop_folder(tmp_path_factory) -> Path:
    """The folder of a checkpoint that follows in crops; read only."""
    return write_crop_checkpoint(tmp_path_factory.mktemp("crop") / "model")


@pytest.fixture
def crop_network(crop_folder) -> ElysiumNetwork:
    """Its network, float32; a test may change it."""
    return load_checkpoint(crop_folder, dtype=torch.float32).network


@dataclass
class Outcome:
    """What a command line left behind."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture(scope="session")
def invoke():
    """Run a Typer app in this process: ``invoke(app, "ground", "a.png", "--json")``."""

    def run(app: Any, *arguments: object) -> Outcome:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """The checkpoint's folder; read only."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def closed_folder(tmp_path_factory) -> Path:
    """The same checkpoint, with a closed vocabulary."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("closed") / "model", NAMES)


@pytest.fixture
def tiny(tiny_folder) -> Elysium:
    """The model; every test has its own, because some break it."""
    return Elysium.from_pretrained(tiny_folder, device="cpu")


@pytest.fixture
def runtime(tiny) -> Runtime:
    """Its parts."""
    return tiny.runtime


@pytest.fixture(scope="session")
def judge(tiny_folder):
    """Greedy decoding by transformers: ``judge(embeddings, max_new_tokens, eos_id)`` gives token ids, no end token."""
    checkpoint = load_checkpoint(tiny_folder)
    llama = LlamaForCausalLM(LlamaConfig(**checkpoint.llm_settings)).eval()
    llama.load_state_dict(checkpoint.network.llm.state_dict())

    @torch.inference_mode()
    def generate(embeddings: torch.Tensor, max_new_tokens: int, eos_id: int = 2) -> list[int]:
        written = llama.generate(
            inputs_embeds=embeddings[None].clone(),
            attention_mask=torch.ones(1, len(embeddings), dtype=torch.long),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=eos_id,
            pad_token_id=0,
        )[0].tolist()
        return written[: written.index(eos_id)] if eos_id in written else written

    return generate


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    """How many pictures each call of a network's vision encoder gets, one number a call."""
    counts: list[int] = []
    encode = ElysiumNetwork.encode_frames

    def count(network: ElysiumNetwork, pixels: torch.Tensor) -> torch.Tensor:
        counts.append(len(pixels))
        return encode(network, pixels)

    monkeypatch.setattr(ElysiumNetwork, "encode_frames", count)
    return counts


@pytest.fixture(scope="session")
def frames() -> list[Frame]:
    """Forty pictures of noise, each unlike the others, stamped at 10 Hz."""
    random = np.random.default_rng(11)
    return [
        Frame(random.integers(0, 256, (40, 48, 3), dtype=np.uint8), stamp_ns=(index + 1) * 100_000_000, index=index)
        for index in range(40)
    ]


def neighbour(name: str) -> ModuleType:
    """A module of this folder; test modules are no packages, so they cannot be imported by name."""
    path = Path(__file__).parent / name
    spec = spec_from_file_location(path.stem, path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def published(tmp_path_factory) -> Path:
    """The folder of a checkpoint in the published layout; read only."""
    folder = tmp_path_factory.mktemp("checkpoint")
    neighbour("published_checkpoint.py").write_published_checkpoint(folder)
    return folder


@pytest.fixture
def folder(published, tmp_path) -> Path:
    """A copy of the checkpoint that a test may damage."""
    return shutil.copytree(published, tmp_path / "model")


@pytest.fixture
def edit_json():
    """Change keys of a JSON file."""

    def _edit(path: Path, **changes) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes), encoding="utf-8")

    return _edit


@pytest.fixture
def edit_weights(folder):
    """Rewrite the weights of ``folder`` by a function from name and tensor to a dictionary."""

    def _edit(change) -> None:
        path = folder / "model.safetensors"
        edited: dict[str, torch.Tensor] = {}
        for key, value in load_file(path).items():
            edited |= change(key, value)
        save_file(edited, path)

    return _edit


@pytest.fixture(scope="session")
def reference(published):
    """The slow model of the checkpoint."""
    return neighbour("network/reference.py").Reference(published)


@pytest.fixture(scope="session")
def images() -> list[np.ndarray]:
    """Eight pictures of different sizes: noise over shapes, so that every patch differs."""
    random = np.random.default_rng(3)
    pictures = []
    for index in range(8):
        height, width = 40 + 5 * index, 120 - 4 * index
        picture = random.integers(0, 60, (height, width, 3))
        picture[height // 4 : height // 2, 5 * index : 5 * index + 30] += np.array([120, 60, 20 * index])
        pictures.append(picture.clip(0, 255).astype(np.uint8))
    return pictures


@pytest.fixture(scope="session")
def sprites_once():
    """The packaged sprites are read once, not for every library of cut-outs."""
    from elysium_core.data.photos import cutouts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutouts, "packaged_sprites", cache_results(cutouts.packaged_sprites))
        yield


class Recordings:
    """Records nothing, but counts."""

    def __init__(self):
        self.made = self.run = 0

    def __call__(self, program):
        self.made += 1

        def replay():
            self.run += 1
            program()

        return replay


@pytest.fixture
def record() -> Recordings:
    """Stands in for CUDA graphs where there is no GPU."""
    return Recordings()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """The user's cache, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "elysium"


@pytest.fixture
def pickles_converted_here(monkeypatch) -> None:
    """Pickled weights are converted in this process: another one would import torch again, which takes seconds.

    That other process has its own tests, in checkpoint/test_checkpoint.py and test_damaged_checkpoint.py.
    """

    def convert_here(sources: Sequence[Path], out: Path) -> list[Path]:
        convert(str(out), *map(str, sources))
        return [out / f"{source.stem}.safetensors" for source in sources]

    monkeypatch.setattr("elysium_core.checkpoint.checkpoint.convert_in_subprocess", convert_here)


@pytest.fixture
def network(tiny_folder) -> ElysiumNetwork:
    """The network of the checkpoint, float32; a test may change it."""
    return load_checkpoint(tiny_folder, dtype=torch.float32).network


QWEN_KINDS = ("qwen3_vl", "qwen2_5_vl")


@pytest.fixture(scope="session")
def qwen_folders(tmp_path_factory) -> dict[str, Path]:
    """Folders of tiny Qwen-VL models by ``model_type``; read only."""
    write = neighbour("qwen_checkpoint.py").write_qwen_checkpoint
    return {kind: write(tmp_path_factory.mktemp("qwen") / kind, kind) for kind in QWEN_KINDS}


@pytest.fixture(scope="session")
def qwen_models(qwen_folders) -> dict[str, Elysium]:
    """Those models, loaded; tests must not change them."""
    load = {"device": "cpu", "max_pixels": 48 * 1024}
    return {kind: Elysium.from_pretrained(folder, **load) for kind, folder in qwen_folders.items()}


@pytest.fixture(scope="session")
def lessons() -> ModuleType:
    """The clip that the tiny Qwen-VL models of ``taught_qwen`` know by heart."""
    return neighbour("qwen_lessons.py")


@pytest.fixture(scope="session")
def taught_qwen(tmp_path_factory, lessons) -> Callable[[str], Path]:
    """Returns the folder of a tiny Qwen-VL model that has learnt the lessons, by ``model_type``; read only."""

    @cache_results
    def folder(kind: str = "qwen3_vl") -> Path:
        path = neighbour("qwen_checkpoint.py").write_qwen_checkpoint(tmp_path_factory.mktemp("taught") / kind, kind)
        lessons.teach(path)
        return path

    return folder


@pytest.fixture(scope="session")
def write_qwen_checkpoint():
    """Writes another one: ``write_qwen_checkpoint(folder, kind, seed)``."""
    return neighbour("qwen_checkpoint.py").write_qwen_checkpoint
