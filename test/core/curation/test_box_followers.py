from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from elysium_core.curation.box_followers import ModelFollower, OpenCvFollower, load_follower, opencv_names
from elysium_core.curation.sam2_follower import Sam2Follower, mask_box
from elysium_core.errors import BackendError, ModelFileError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.tracking.identity import IdentityModel

SIDE = 96


def moving(count: int = 6) -> tuple[list[Frame], list[Box]]:
    """A textured square that moves over a smooth ground, and its boxes."""
    rng = np.random.default_rng(0)
    square = rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)
    frames, boxes = [], []
    for t in range(count):
        image = np.full((SIDE, SIDE, 3), 120, np.uint8)
        left, top = 20 + 3 * t, 30 + t
        image[top : top + 24, left : left + 24] = square
        frames.append(Frame(image, index=t))
        boxes.append(Box.from_px(left, top, left + 24, top + 24, SIDE, SIDE))
    return frames, boxes


def test_an_opencv_tracker_follows_and_counts_a_box_as_sure():
    assert "MIL" in opencv_names()
    cv2.setRNGSeed(0)
    frames, boxes = moving()
    (track,) = load_follower("opencv:MIL").follow(frames, boxes[:1])
    assert len(track.boxes) == len(frames)
    assert track.boxes[0] == boxes[0]
    # MIL draws random samples and may lose the square for a frame.
    assert list(track.scores) == [float(box is not None) for box in track.boxes]
    assert max(found.iou(true) for found, true in zip(track.boxes[1:], boxes[1:], strict=True) if found) > 0.3


def test_a_box_that_opencv_cannot_start_from_has_no_track():
    frames, _ = moving(3)
    (track,) = load_follower("opencv:MIL").follow(frames, [Box(0.5, 0.5, 0.51, 0.51)])
    assert track.boxes == (None,) * 3
    assert track.scores == (0.0,) * 3


def test_scores_of_a_tracker_that_has_them_are_taken_and_a_lost_box_is_none():
    class Scored:
        def __init__(self):
            self.steps = 0

        def init(self, picture, box):
            self.box = box

        def update(self, picture):
            self.steps += 1
            return self.steps < 3, self.box

        def getTrackingScore(self):  # noqa: N802 - OpenCV's name
            return 0.7

    frames, boxes = moving(4)
    (track,) = OpenCvFollower("scored", Scored, has_scores=True).follow(frames, boxes[:1])
    assert track.scores == (1.0, 0.7, 0.7, 0.0)
    assert track.boxes[3] is None


def test_more_boxes_than_a_tracker_takes_are_all_followed():
    frames, _ = moving(3)
    boxes = [Box(0.01 * n, 0.1, 0.01 * n + 0.2, 0.5) for n in range(20)]
    tracks = ModelFollower(IdentityModel()).follow(frames, boxes)
    assert [track.boxes for track in tracks] == [(box,) * 3 for box in boxes]


def test_trackers_that_are_not_there_are_named(tmp_path):
    for spec, error in (("opencv:Nano", BackendError), ("sam2:./none", ModelFileError)):
        with pytest.raises(error) as refused:
            load_follower(spec)
        assert spec.partition(":")[2] in str(refused.value)
    (tmp_path / "x.onnx").write_bytes(b"no graph")
    with pytest.raises(BackendError) as refused:
        load_follower(f"vit:{tmp_path / 'x.onnx'}")
    assert "x.onnx" in str(refused.value)


def test_the_box_of_a_mask_is_what_it_fills():
    mask = np.full((8, 16), -1.0)
    assert mask_box(mask) is None
    mask[2:4, 4:12] = 1
    assert mask_box(mask) == Box(0.25, 0.25, 0.75, 0.5)


@pytest.fixture(scope="module")
def sam2_folder(tmp_path_factory):
    """A random SAM 2 for video with the fewest weights that its code allows."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=8,
        image_size=64,
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 2, 4],
        window_size_per_stage=[8, 4, 4, 2],
        global_attention_blocks=[3],
    )
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=128,
    )
    config = transformers.Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 128, "image_size": 64, "patch_size": 16, "mask_input_channels": 4},
        mask_decoder_config={"hidden_size": 128, "mlp_dim": 128, "num_attention_heads": 2, "iou_head_hidden_dim": 128},
        image_size=64,
        num_maskmem=3,
        max_object_pointers_in_encoder=3,
        memory_attention_hidden_size=128,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=128,
        memory_attention_rope_feat_sizes=[4, 4],
        memory_encoder_hidden_size=128,
        memory_encoder_output_channels=64,
        mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128,
        memory_fuser_intermediate_dim=128,
    )
    folder = tmp_path_factory.mktemp("sam2")
    transformers.Sam2VideoModel(config).save_pretrained(folder)
    return folder


def test_sam2_gives_each_object_a_box_and_a_score_in_every_frame(sam2_folder):
    frames, boxes = moving(7)
    given = [boxes[0], Box(0.6, 0.6, 0.9, 0.9)]
    tracks = load_follower(f"sam2:{sam2_folder}", "cpu").follow(frames, given)
    assert [track.boxes[0] for track in tracks] == given
    for track in tracks:
        assert len(track.boxes) == len(track.scores) == 7
        assert all(0 <= score <= 1 for score in track.scores)


def test_sam2_forgets_only_what_it_does_not_look_back_on(sam2_folder, monkeypatch):
    frames, boxes = moving(7)
    follower = Sam2Follower(str(sam2_folder), "cpu")
    brief = follower.follow(frames, boxes[:1])
    monkeypatch.setattr(Sam2Follower, "_forget", lambda self, session, number: None)
    assert follower.follow(frames, boxes[:1]) == brief
