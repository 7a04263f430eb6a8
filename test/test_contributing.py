"""The recipes of CONTRIBUTING.md, applied to a copy of the sources and run there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
CONTRIBUTING = ROOT / "CONTRIBUTING.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", CONTRIBUTING.read_text(encoding="utf-8"), flags=re.DOTALL)


def apply(patch: str, folder: Path) -> None:
    """Apply a change as CONTRIBUTING.md shows it: the file's name, then neighbouring lines, kept, added or removed."""
    head, *lines = patch.splitlines()
    path = folder / head.removeprefix(" # ")
    before = "\n".join(line[1:] for line in lines if not line.startswith("+")) + "\n"
    after = "\n".join(line[1:] for line in lines if not line.startswith("-")) + "\n"
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1, f"{head}: these lines are not in the file exactly once:\n{before}"
    path.write_text(text.replace(before, after), encoding="utf-8")


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """Copy the packages and apply all recipes."""
    folder = tmp_path_factory.mktemp("sources")
    large = shutil.ignore_patterns("__pycache__", "weights", "assets")
    for package in ("elysium_core", "elysium_ros", "bench", "config", "docs"):
        shutil.copytree(ROOT / package, folder / package, ignore=large)
    for data in ("elysium_core/weights", "elysium_core/data/synthetic/assets"):
        (folder / data).symlink_to(ROOT / data)
    for code in blocks("python"):
        path = folder / code.partition("\n")[0].removeprefix("# ")
        assert not path.exists(), path
        path.write_text(code, encoding="utf-8")
    for patch in blocks("diff"):
        apply(patch, folder)
    return folder


def run_python(sources: Path, folder: Path, *arguments: str | Path) -> str:
    """Run Python with the changed sources, in another folder; return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(sources), "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def run(sources, tmp_path):
    """Run a module of the changed sources."""
    return lambda module, *arguments: run_python(sources, tmp_path, "-m", module, *arguments)


@pytest.fixture
def picture(tmp_path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)
    return path


def test_a_data_set(run, tmp_path):
    folder = tmp_path / "data" / "walk"
    folder.mkdir(parents=True)
    for number in range(3):
        Image.fromarray(np.full((48, 64, 3), 40 * number, np.uint8)).save(folder / f"{number:04}.jpg")
    (folder / "boxes.txt").write_text("8,8,16,16\n8,8,16,16\n24,8,16,16\n", encoding="utf-8")
    run("elysium_core.cli", "eval", "boxes", "--data", folder.parent, "--model", "identity", "--out", tmp_path / "run")
    report = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert "boxes and pictures" in report
    # Right in two of three frames, and a perfect tracker reaches 20/21.
    assert f"{100 * 2 / 3 * 20 / 21:.2f}" in report


def test_a_kind_of_evaluation(run, picture, tmp_path):
    run(
        "elysium_core.cli", "eval", "mirror", "--data", picture.parent, "--model", "identity", "--out", tmp_path / "run"
    )
    scores = json.loads((tmp_path / "run" / "scores.json").read_text(encoding="utf-8"))
    assert scores["iou"] == 1.0, "the whole picture stays where it is"
    assert scores["facts"] == {"Pictures": "1"}


# Everything that needs torch, in one process, because importing it takes longest. ``MEAN`` is a checkpoint folder.
WITH_TORCH = """
import json, sys
import numpy as np
from elysium_core import Box, Elysium, Frame

images = np.random.default_rng(2).integers(0, 256, (3, 60, 80, 3), dtype=np.uint8)
ways = {"torch": ("nano", "torch"), "half": ("nano", "half"), "mean": (sys.argv[1], "torch")}
models = {name: Elysium.from_pretrained(path, vision_backend=way) for name, (path, way) in ways.items()}
scores = {name: model.ground(images[0], "apple").score for name, model in models.items()}

model = Elysium.from_pretrained(sys.argv[2])
family = model.runtime.family
boxes = [Box(0.125, 0.25, 0.5, 0.751), Box(0.126, 0.25, 0.5, 0.751)]
read = family.grammar.read(family.grammar.answer(boxes, (1000, 1000)), 2, (1000, 1000))
asked, conversation = [], family.conversation
family.conversation = lambda question, *rest, **more: asked.append(question) or conversation(question, *rest, **more)
tracker = model.tracker()
tracker.add(box=boxes[0])
states = [tracker.step(Frame(image, index=index))[0].state for index, image in enumerate(images)]
print(json.dumps({"scores": scores, "same": list(read.boxes) == boxes, "asked": asked, "states": states}))
"""


@pytest.fixture(scope="module")
def with_torch(sources, tmp_path_factory) -> dict[str, Any]:
    """Use the new adapter, the new backend and the new family."""
    model = tmp_path_factory.mktemp("model") / "mean"
    shutil.copytree(ROOT / "elysium_core" / "weights" / "nano", model)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config["adapter_config"] |= {"type": "mean", "out_token_num": 32}
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (model / "SHA256SUMS").unlink()
    thousandths = model.with_name("thousandths")
    thousandths.mkdir()
    (thousandths / "config.json").write_text('{"model_type": "thousandths"}', encoding="utf-8")
    return json.loads(run_python(sources, model.parent, "-c", WITH_TORCH, model, thousandths))


def test_a_token_adapter(with_torch):
    """The shipped weights with another adapter: those of the T-Selector are not used."""
    scores = with_torch["scores"]
    assert scores["mean"] != pytest.approx(scores["torch"], abs=1e-4)


def test_a_vision_backend(with_torch):
    scores = with_torch["scores"]
    assert scores["half"] != scores["torch"], "the arithmetic is another"
    assert scores["half"] == pytest.approx(scores["torch"], abs=0.1), "the model is the same"


def test_a_model_family(with_torch):
    """The tracker asks and reads in thousandths."""
    assert with_torch["same"]
    assert with_torch["asked"]
    assert all("[125,250,500,751]" in question for question in with_torch["asked"])
    assert with_torch["states"][0] == "TRACKED"


def test_a_verb(run, picture):
    assert json.loads(run("elysium_core.cli", "frames", picture, "--json")) == {"frames": 1}
    assert "Count the frames of a video." in run("elysium_core.cli", "--help")


def test_a_ros_parameter(run, sources):
    run("elysium_ros.node.parameter_docs", "--root", sources)
    assert "| `publish.line_width` | int | `2` px | 1..20 |" in (sources / "docs" / "parameters.md").read_text()
    table = yaml.safe_load((sources / "config" / "tracker.yaml").read_text(encoding="utf-8"))
    assert table["/**"]["ros__parameters"]["publish.line_width"] == 2


def test_a_benchmark(run):
    assert json.loads(run("bench.resize", "--json"))["resize_ms"] > 0
