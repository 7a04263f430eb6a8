"""Every tracking layout, with the quirks of the real data set in a fixture of a few frames."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from elysium_core.data.readers.davis import read_davis, tight_box
from elysium_core.data.readers.folder import read_folder
from elysium_core.data.readers.lasot import names_of_test_split, read_lasot
from elysium_core.data.readers.picture_folders import read_got10k, read_otb, read_trackingnet, read_uav123
from elysium_core.errors import ConfigError, DataError

BOXES = "1,2,3,4\n5,6,7,8\n"


class TestFolder:
    def test_frames_truth_and_words(self, tmp_path, write, pictures, grays):
        pictures("mug/frames", ["2.jpg", "10.jpg"])
        write("mug/gt.txt", "1,2,3,4\nNaN,NaN,NaN,NaN\n")
        write("mug/expression.txt", " the red\nmug \n")
        write("notes/readme.txt", "not a recording")
        (recording,) = read_folder(tmp_path)
        assert (recording.name, recording.expression, recording.pixel_origin) == ("mug", "the red mug", 0)
        assert recording.boxes_xywh_px[0].tolist() == [1, 2, 3, 4]
        assert np.isnan(recording.boxes_xywh_px[1]).all()
        assert grays(recording.frames) == [0, 1]

    def test_a_single_recording_may_be_given_itself(self, tmp_path, write, pictures):
        pictures("mug/frames", ["1.jpg"])
        write("mug/gt.txt", "1,2,3,4")
        assert [r.name for r in read_folder(tmp_path / "mug")] == ["mug"]

    def test_a_video_instead_of_frames(self, tmp_path, write):
        write("mug/gt.txt", BOXES)
        write("mug/clip.mpg", "")
        (recording,) = read_folder(tmp_path)
        assert recording.frames.count is None
        assert recording.frames.name.endswith("clip.mpg")

    def test_neither_frames_nor_one_video(self, tmp_path, write):
        write("mug/gt.txt", BOXES)
        with pytest.raises(DataError, match="0 video files"):
            list(read_folder(tmp_path))

    def test_a_missing_frame_is_named(self, tmp_path, write, pictures):
        pictures("mug/frames", ["1.jpg"])
        write("mug/gt.txt", BOXES)
        with pytest.raises(DataError, match=r"mug/gt\.txt' .*2 .* 1 "):
            list(read_folder(tmp_path))

    def test_a_damaged_frame_is_named_when_it_is_read(self, tmp_path, write, pictures):
        folder = pictures("mug/frames", ["1.jpg", "2.jpg"])
        (folder / "2.jpg").write_bytes(b"no picture")
        write("mug/gt.txt", BOXES)
        (recording,) = read_folder(tmp_path)
        with pytest.raises(DataError, match=r"frame 1 of .*2\.jpg"):
            list(recording.frames)

    def test_an_empty_or_missing_folder(self, tmp_path):
        with pytest.raises(DataError, match=r"no subfolder .* holds a gt\.txt"):
            list(read_folder(tmp_path))
        with pytest.raises(DataError, match="check --data"):
            list(read_folder(tmp_path / "no"))


class TestOtb:
    def test_pixels_from_one_and_any_separator(self, tmp_path, write, pictures):
        pictures("Crossing/img", ["0001.jpg", "0002.jpg"])
        write("Crossing/groundtruth_rect.txt", "1\t1\t3\t4\n5\t6\t7\t8\n")
        (recording,) = read_otb(tmp_path)
        assert recording.boxes_xywh_px.tolist() == [[0, 0, 3, 4], [4, 5, 7, 8]]
        assert recording.pixel_origin == 1

    def test_five_digit_names(self, tmp_path, write, pictures, grays):
        pictures("Board/img", ["00001.jpg", "00002.jpg"])
        write("Board/groundtruth_rect.txt", BOXES)
        (recording,) = read_otb(tmp_path)
        assert grays(recording.frames) == [0, 1]

    def test_two_targets_in_one_folder(self, tmp_path, write, pictures):
        pictures("Jogging/img", ["0001.jpg", "0002.jpg"])
        write("Jogging/groundtruth_rect.1.txt", BOXES)
        write("Jogging/groundtruth_rect.2.txt", "9 9 9 9\n8 8 8 8")
        first, second = read_otb(tmp_path)
        assert (first.name, second.name) == ("Jogging.1", "Jogging.2")
        assert second.boxes_xywh_px[0].tolist() == [8, 8, 9, 9]

    def test_human4_has_an_empty_first_file(self, tmp_path, write, pictures):
        pictures("Human4/img", ["0001.jpg", "0002.jpg"])
        write("Human4/groundtruth_rect.1.txt", "\n")
        write("Human4/groundtruth_rect.2.txt", BOXES)
        assert [r.name for r in read_otb(tmp_path)] == ["Human4"]

    def test_david_is_annotated_from_frame_300_to_770(self, tmp_path, write, pictures, grays):
        pictures("David/img", [f"{n:04d}.jpg" for n in (298, 299, 300, 770, 771)])
        write("David/groundtruth_rect.txt", BOXES)
        (recording,) = read_otb(tmp_path)
        assert grays(recording.frames) == [2, 3]

    def test_blurcar1_starts_at_file_247_and_tiger1_skips_five_frames(self, tmp_path, write, pictures, grays):
        pictures("BlurCar1/img", ["0246.jpg", "0247.jpg", "0248.jpg"])
        write("BlurCar1/groundtruth_rect.txt", BOXES)
        pictures("Tiger1/img", [f"{n:04d}.jpg" for n in range(1, 8)])
        write("Tiger1/groundtruth_rect.txt", "".join(f"{n},1,5,5\n" for n in range(1, 8)))
        car, tiger = read_otb(tmp_path)
        assert grays(car.frames) == [1, 2]
        assert grays(tiger.frames) == [5, 6]
        assert tiger.boxes_xywh_px[:, 0].tolist() == [5, 6]


class TestUav123:
    def test_parts_of_one_folder(self, tmp_path, write, pictures, grays):
        pictures("data_seq/UAV123/bird1", [f"{n:06d}.jpg" for n in (1, 2, 775, 776)])
        pictures("data_seq/UAV123/bike1", ["000001.jpg", "000002.jpg"])
        write("anno/UAV123/bird1_1.txt", BOXES)
        write("anno/UAV123/bird1_2.txt", "1,2,3,4\nNaN,NaN,NaN,NaN\n")
        write("anno/UAV123/bike1.txt", BOXES)
        bike, first, second = read_uav123(tmp_path)
        assert (bike.name, first.name, second.name) == ("bike1", "bird1_1", "bird1_2")
        assert grays(first.frames) == [0, 1]
        assert grays(second.frames) == [2, 3]
        assert np.isnan(second.boxes_xywh_px[1]).all()

    def test_a_name_that_only_looks_like_a_part(self, tmp_path, write, pictures):
        pictures("data_seq/UAV123/wakeboard_9", ["000001.jpg"])
        write("anno/UAV123/wakeboard_9.txt", "1,2,3,4")
        assert [r.name for r in read_uav123(tmp_path)] == ["wakeboard_9"]

    def test_a_missing_frame_in_the_middle_is_named(self, tmp_path, write, pictures):
        pictures("data_seq/UAV123/bike1", ["000001.jpg", "000003.jpg"])
        write("anno/UAV123/bike1.txt", BOXES + "1,2,3,4\n")
        with pytest.raises(DataError, match=r"1 of 3 frames are missing .* the first is '000002\.jpg'"):
            list(read_uav123(tmp_path))


class TestLasot:
    def make(self, write, pictures, name, occluded="0,1,0", outside="0,0,1"):
        folder = f"{name.rpartition('-')[0]}/{name}"
        pictures(f"{folder}/img", [f"{n:08d}.jpg" for n in (1, 2, 3)])
        write(f"{folder}/groundtruth.txt", "1,2,3,4\n1,1,-1,-1\n5,6,7,8\n")
        write(f"{folder}/full_occlusion.txt", occluded)
        write(f"{folder}/out_of_view.txt", outside)
        write(f"{folder}/nlp.txt", "white airplane landing on ground\n")

    def test_flags_words_and_coordinates_as_written(self, tmp_path, write, pictures):
        self.make(write, pictures, "airplane-1")
        (recording,) = read_lasot(tmp_path)
        assert recording.absent.tolist() == [False, True, True]
        assert recording.expression == "white airplane landing on ground"
        assert recording.category == "airplane"
        assert recording.boxes_xywh_px[:2].tolist() == [[1, 2, 3, 4], [1, 1, 0, 0]]

    def test_splits(self, tmp_path, write, pictures):
        for name in ("airplane-2", "airplane-15", "airplane-9"):
            self.make(write, pictures, name)
        assert [r.name for r in read_lasot(tmp_path)] == ["airplane-9", "airplane-15"]
        assert [r.name for r in read_lasot(tmp_path, "train")] == ["airplane-2"]
        assert [r.name for r in read_lasot(tmp_path, "all")] == ["airplane-2", "airplane-9", "airplane-15"]

    def test_the_test_split_has_280_names_of_70_classes(self):
        names = names_of_test_split()
        assert len(names) == len(set(names)) == 280
        assert len({name.rpartition("-")[0] for name in names}) == 70

    def test_the_toolkits_own_flag_file(self, tmp_path, write, pictures):
        self.make(write, pictures, "airplane-1")
        folder = tmp_path / "airplane/airplane-1"
        (folder / "full_occlusion.txt").unlink()
        (folder / "out_of_view.txt").unlink()
        with pytest.raises(DataError, match=r"full_occlusion\.txt"):
            list(read_lasot(tmp_path))
        write("airplane/airplane-1/absent.txt", "0\n1\n0\n")
        assert next(read_lasot(tmp_path)).absent.tolist() == [False, True, False]

    def test_unknown_split_and_empty_split(self, tmp_path, write, pictures):
        self.make(write, pictures, "airplane-2")
        with pytest.raises(ConfigError, match="'val'"):
            list(read_lasot(tmp_path, "val"))
        with pytest.raises(DataError, match="'test'"):
            list(read_lasot(tmp_path))


class TestGot10k:
    def make(self, write, pictures, split, truth, cover="8\n0\n3\n"):
        folder = f"{split}/GOT-10k_{split}_000001"
        pictures(folder, [f"{n:08d}.jpg" for n in (1, 2, 3)])
        write(f"{folder}/groundtruth.txt", truth)
        write(f"{folder}/cover.label", cover)
        write(f"{folder}/meta_info.ini", "[METAINFO]\nurl: https://x.y/?v=1\nobject_class: armored personnel carrier\n")
        write(f"{split}/list.txt", f"GOT-10k_{split}_000001\n")

    def test_val(self, tmp_path, write, pictures):
        self.make(write, pictures, "val", "1.5,2,3,4\n5,6,7,8\n9,9,9,9\n")
        (recording,) = read_got10k(tmp_path)
        assert recording.boxes_xywh_px[0].tolist() == [1.5, 2, 3, 4]
        assert recording.absent.tolist() == [False, True, False]
        assert recording.category == "armored personnel carrier"
        assert not recording.first_box_only

    def test_absence_label_where_there_is_no_cover(self, tmp_path, write, pictures):
        self.make(write, pictures, "val", "1,2,3,4\n5,6,7,8\n9,9,9,9\n")
        (tmp_path / "val/GOT-10k_val_000001/cover.label").unlink()
        write("val/GOT-10k_val_000001/absence.label", "0\n0\n1\n")
        assert next(read_got10k(tmp_path)).absent.tolist() == [False, False, True]

    def test_of_a_test_recording_only_the_first_box_is_known(self, tmp_path, write, pictures):
        self.make(write, pictures, "test", "347.0000,443.0000,429.0000,272.0000\n")
        (recording,) = read_got10k(tmp_path, "test")
        assert recording.first_box_only
        assert recording.frame_count == 3
        assert np.isnan(recording.boxes_xywh_px[1:]).all()

    def test_wrong_splits(self, tmp_path):
        with pytest.raises(ConfigError, match="'dev'"):
            list(read_got10k(tmp_path, "dev"))
        with pytest.raises(DataError, match=r"val/list\.txt"):
            list(read_got10k(tmp_path))


class TestTrackingNet:
    def test_frames_are_sorted_as_numbers(self, tmp_path, write, pictures, grays):
        pictures("TRAIN_3/frames/vid", [f"{n}.jpg" for n in range(12)])
        write("TRAIN_3/anno/vid.txt", "1,2,3,4\n" * 12)
        (recording,) = read_trackingnet(tmp_path, "TRAIN_3")
        assert grays(recording.frames) == list(range(12))

    def test_of_a_test_video_only_the_first_box_is_known(self, tmp_path, write, pictures):
        pictures("TEST/frames/vid", ["0.jpg", "1.jpg"])
        write("TEST/anno/vid.txt", "1,2,3,4\n")
        (recording,) = read_trackingnet(tmp_path)
        assert recording.first_box_only
        assert recording.frame_count == 2

    @pytest.mark.parametrize("split", ["TRAIN_12", "test", "../TEST"])
    def test_wrong_split(self, tmp_path, split):
        with pytest.raises(ConfigError, match="no split"):
            list(read_trackingnet(tmp_path, split))


class TestDavis:
    def mask(self, tmp_path, name, pixels, palette=False):
        path = tmp_path / "Annotations/480p" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(np.asarray(pixels, np.uint8))
        if palette:
            picture = picture.convert("P")
            picture.putpalette([v for k in range(256) for v in (255 - k, k, 0)])
            picture.putdata(np.asarray(pixels, np.uint8).ravel().tolist())
        picture.save(path)

    def test_boxes_from_a_mask_of_one_object(self, tmp_path, pictures):
        pictures("JPEGImages/480p/libby", ["00000.jpg", "00001.jpg"])
        pixels = np.zeros((24, 32))
        pixels[5:9, 10:30] = 255
        self.mask(tmp_path, "libby/00000.png", pixels)
        self.mask(tmp_path, "libby/00001.png", pixels * 0)
        (recording,) = read_davis(tmp_path)
        assert recording.name == "libby"
        assert recording.boxes_xywh_px[0].tolist() == [10, 5, 20, 4]
        assert np.isnan(recording.boxes_xywh_px[1]).all()

    def test_several_objects_by_palette_number(self, tmp_path, pictures):
        pictures("JPEGImages/480p/dogs", ["00000.jpg"])
        pixels = np.zeros((24, 32))
        pixels[0:2, 0:2], pixels[10:12, 20:26] = 1, 3
        self.mask(tmp_path, "dogs/00000.png", pixels, palette=True)
        first, second = read_davis(tmp_path)
        assert (first.name, second.name) == ("dogs.1", "dogs.2")
        assert second.boxes_xywh_px.tolist() == [[20, 10, 6, 2]]

    @pytest.mark.parametrize(
        ("list_file", "text"),
        [
            ("ImageSets/2017/val.txt", "b\n"),
            ("ImageSets/480p/val.txt", "/JPEGImages/480p/b/00000.jpg /Annotations/480p/b/00000.png\n"),
        ],
    )
    def test_the_list_of_a_split(self, tmp_path, write, pictures, list_file, text):
        for name in ("a", "b"):
            pictures(f"JPEGImages/480p/{name}", ["00000.jpg"])
            self.mask(tmp_path, f"{name}/00000.png", np.full((24, 32), 255))
        write(list_file, text)
        assert [r.name for r in read_davis(tmp_path)] == ["b"]

    def test_a_damaged_mask_is_named(self, tmp_path, write, pictures):
        pictures("JPEGImages/480p/a", ["00000.jpg"])
        write("Annotations/480p/a/00000.png", "no picture")
        with pytest.raises(DataError, match=r"mask .*a/00000\.png"):
            list(read_davis(tmp_path))

    def test_the_tight_box_of_one_pixel(self):
        pixels = np.zeros((4, 5), bool)
        pixels[3, 4] = True
        assert tight_box(pixels) == (4, 3, 1, 1)
