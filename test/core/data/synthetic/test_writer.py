from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from elysium_core.data.readers.elysiumtrack import read_elysiumtrack
from elysium_core.data.synthetic import writer
from elysium_core.data.synthetic.clips import TrainingClips
from elysium_core.data.synthetic.expressions import references
from elysium_core.data.synthetic.writer import claim_folder, track_lines, write_shards, write_track_files
from elysium_core.errors import ConfigError, DataError


@pytest.fixture
def clips() -> TrainingClips:
    """Clips of 3 small frames on procedural backgrounds."""
    return TrainingClips(frames=3, seed=7, side_px=48, photo_folders=())


def files_of(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class TestTrackFiles:
    def test_the_reader_of_elysiumtrack_reads_them(self, clips, tmp_path):
        assert list(write_track_files(clips, 3, tmp_path)) == ["train-000000", "train-000001", "train-000002"]
        recordings = list(read_elysiumtrack(tmp_path, "train"))
        samples = [clips.draw(index) for index in range(3)]
        expected = [(s, target) for s in samples for target in s.targets if references(s.clip, target)]
        assert len(recordings) == len(expected) > 3
        for recording, (sample, target) in zip(recordings, expected, strict=True):
            assert recording.expression == references(sample.clip, target)[0].text
            assert recording.frame_size == (48, 48)
            for frame, image in zip(recording.frames, sample.clip.images, strict=True):
                np.testing.assert_array_equal(frame.image, image)
            corners = np.concatenate(
                [recording.boxes_xywh_px[:, :2], recording.boxes_xywh_px[:, :2] + recording.boxes_xywh_px[:, 2:]],
                axis=1,
            )
            np.testing.assert_allclose(corners / 48, sample.clip.boxes[target], atol=1e-6)

    def test_twins_have_lines_of_their_own(self):
        twins = TrainingClips(frames=1, objects=(3, 3), side_px=48, photo_folders=(), twin_share=1.0)
        lines = [line for index in range(8) for line in track_lines(twins.draw(index))]
        assert len({line["id"] for line in lines}) == len(lines)
        assert all(line["object_description"] in line["metadata"]["references"] for line in lines)
        assert {kind for line in lines for kind in line["metadata"]["references"].values()} >= {"color", "place"}

    def test_a_line_has_the_published_fields(self, clips):
        line = track_lines(clips.draw(0))[0]
        assert list(line) == [
            "source", "id", "vid", "metadata", "frames", "object_class", "box", "object_description", "frame_size",
        ]  # fmt: skip
        assert len(line["frames"]) == len(line["box"]) == len(line["metadata"]["visible"]) == 3

    def test_an_object_that_cannot_be_seen_has_a_box_of_zeros(self, clips):
        sample = clips.draw(0)
        target = sample.targets[0]
        sample.clip.visible[target, 2] = 0
        assert track_lines(sample)[0]["box"][2] == [0.0] * 4

    def test_two_runs_write_the_same_bytes(self, clips, tmp_path):
        for name in ("a", "b"):
            list(write_track_files(clips, 2, tmp_path / name))
        assert files_of(tmp_path / "a") == files_of(tmp_path / "b")

    def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(self, clips, tmp_path, monkeypatch):
        list(write_track_files(clips, 4, tmp_path / "whole"))
        stopped = write_track_files(clips, 4, tmp_path / "stopped")
        next(stopped)
        stopped.close()
        assert not (tmp_path / "stopped" / "ElysiumTrack-train.json").exists()
        drawn = []
        monkeypatch.setattr(
            TrainingClips,
            "draw",
            lambda self, index, draw=TrainingClips.draw: (drawn.append(index), draw(self, index))[1],
        )
        list(write_track_files(clips, 4, tmp_path / "stopped"))
        assert drawn == [1, 2, 3]
        assert files_of(tmp_path / "stopped") == files_of(tmp_path / "whole")

    def test_a_clip_that_cannot_be_written_leaves_nothing(self, clips, tmp_path, monkeypatch):
        def fail(image):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(writer, "encode_png", fail)
        with pytest.raises(OSError, match="No space"):
            list(write_track_files(clips, 1, tmp_path))
        assert files_of(tmp_path) == {}


class TestShards:
    def test_a_shard_holds_what_webdataset_expects(self, clips, tmp_path, monkeypatch):
        monkeypatch.setattr(writer, "SHARD_CLIPS", 2)
        assert len(list(write_shards(clips, 3, tmp_path))) == 3
        assert [path.name for path in sorted(tmp_path.iterdir())] == ["train-000000.tar", "train-000001.tar"]
        with tarfile.open(tmp_path / "train-000000.tar") as shard:
            # Files of one sample lie together and share the name up to the first dot.
            assert shard.getnames()[:5] == [
                "train-000000.json", "train-000000.0000.png", "train-000000.0001.png", "train-000000.0002.png",
                "train-000001.json",
            ]  # fmt: skip
            picture = Image.open(io.BytesIO(shard.extractfile("train-000000.0002.png").read()))
            objects = json.loads(shard.extractfile("train-000000.json").read())
        sample = clips.draw(0)
        np.testing.assert_array_equal(np.asarray(picture), sample.clip.images[2])
        assert objects == track_lines(sample)

    def test_two_runs_write_the_same_bytes(self, clips, tmp_path):
        for name in ("a", "b"):
            list(write_shards(clips, 2, tmp_path / name))
        assert files_of(tmp_path / "a") == files_of(tmp_path / "b")

    def test_whole_shards_are_kept_and_the_last_one_grows(self, clips, tmp_path, monkeypatch):
        monkeypatch.setattr(writer, "SHARD_CLIPS", 2)
        list(write_shards(clips, 3, tmp_path))
        kept = (tmp_path / "train-000000.tar").stat().st_mtime_ns
        list(write_shards(clips, 4, tmp_path))
        assert (tmp_path / "train-000000.tar").stat().st_mtime_ns == kept
        with tarfile.open(tmp_path / "train-000001.tar") as shard:
            assert "train-000003.json" in shard.getnames()

    def test_a_stopped_shard_is_not_there(self, clips, tmp_path):
        stopped = write_shards(clips, 2, tmp_path)
        next(stopped)
        stopped.close()
        assert files_of(tmp_path) == {}


class TestFolders:
    def test_a_folder_is_for_one_data_set(self, tmp_path):
        claim_folder(tmp_path / "new", {"seed": 1, "gap": (1, 2)})
        claim_folder(tmp_path / "new", {"seed": 1, "gap": (1, 2)})
        with pytest.raises(ConfigError, match="choose another --out"):
            claim_folder(tmp_path / "new", {"seed": 2, "gap": (1, 2)})

    def test_a_folder_with_other_files_is_refused(self, tmp_path):
        (tmp_path / "thesis.txt").write_text("mine")
        with pytest.raises(ConfigError, match="other files"):
            claim_folder(tmp_path, {})

    def test_damaged_settings_are_told(self, tmp_path):
        (tmp_path / writer.SETTINGS_NAME).write_text("{")
        with pytest.raises(DataError, match="damaged"):
            claim_folder(tmp_path, {})


@pytest.mark.parametrize(
    "values",
    [{"frames": 0}, {"seed": -1}, {"objects": (0, 1)}, {"objects": (3, 2)}, {"gap": (2.0, 1.0)}, {"gap": (-1.0, 1.0)}],
)
def test_impossible_settings_are_refused(values):
    with pytest.raises(ConfigError):
        TrainingClips(**values)
