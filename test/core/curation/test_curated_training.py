"""From captioned videos to a model: what was curated can be trained on, and training on it helps."""

from __future__ import annotations

import pytest

from bench.curation_world import World, write_world
from elysium_core.api import Elysium
from elysium_core.curation.curated_files import SPLIT
from elysium_core.data.readers.elysiumtrack import read_elysiumtrack
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.training.recipes import load_any_recipe
from elysium_core.training.run import run_stage

RECIPE = """
name: curated
export: tracks
base: {{checkpoint: "{base}"}}
precision: float32
stored_as: float32
device: cpu
data:
  curated: {{reader: elysiumtrack, path: "{data}", split: curated, tasks: [sot]}}
stages:
  tracks:
    steps: 700
    mixture: {{curated: 1}}
    lr: 5.0e-3
    final_lr: 0.1
    batch: 8
    frames: [4, 4]
    interval: [1, 1]
    workers: 0
"""


def mean_overlap(model: Elysium, data) -> float:
    """Mean IoU of a model's boxes with the curated ones, each clip of 4 frames started from its first box."""
    overlaps = []
    for recording in read_elysiumtrack(data, SPLIT):
        width, height = recording.frame_size
        boxes = [Box.from_xywh_px(*row, width, height) for row in recording.boxes_xywh_px[:4]]
        tracker = model.tracker(mode="clip")
        tracker.add(box=boxes[0])
        frames = [Frame(frame.image, index=frame.index) for frame, _ in zip(recording.frames, boxes, strict=False)]
        updates = [update for frame in frames for update in tracker.step(frame)] + tracker.flush()
        found = {update.frame_index: update.box for update in updates}
        later = zip(frames[1:], boxes[1:], strict=True)
        overlaps += [box.iou(true) if (box := found.get(frame.index)) else 0.0 for frame, true in later]
    return sum(overlaps) / len(overlaps)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_training_on_curated_tracks_helps_on_other_videos(curate, tiny_folder, tmp_path):
    """A tiny model answers no box before, and boxes near the object afterwards. Some 45 s on one idle core."""
    for name, world in {"data": World(80, 5, 48), "others": World(8, 5, 48, seed=1)}.items():
        write_world(tmp_path / "world" / name, world)
        assert curate(tmp_path / name, videos=tmp_path / "world" / name).code == 0
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(base=tiny_folder, data=tmp_path / "data"))
    run_stage(load_any_recipe(recipe), "tracks", tmp_path / "run")
    untrained = Elysium.from_pretrained(tiny_folder, device="cpu")
    trained = Elysium.from_pretrained(tmp_path / "run" / "tracks" / "checkpoint", device="cpu")
    before, after = (mean_overlap(model, tmp_path / "others") for model in (untrained, trained))
    assert after > before + 0.2
