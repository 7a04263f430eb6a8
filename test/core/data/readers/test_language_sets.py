"""RefCOCO and the question sets, in the forms in which they are published."""

from __future__ import annotations

import json
import os
import pickle

import pytest

from elysium_core.data.readers.refcoco import find_image, read_plain_pickle, read_refcoco
from elysium_core.data.readers.video_qa import read_video_qa
from elysium_core.errors import ConfigError, DataError


class Evil:
    def __reduce__(self):
        return os.system, ("touch pickle-was-run",)


class TestSafePickle:
    def test_python_2_pickles_of_plain_values(self, tmp_path):
        # As Python 2 wrote it: protocol 0, byte strings.
        (tmp_path / "refs.p").write_bytes(b"(lp0\n(dp1\nS'sent'\np2\nS'caf\\xe9'\np3\nsS'id'\np4\nI7\nsa.")
        assert read_plain_pickle(tmp_path / "refs.p") == [{"sent": "café", "id": 7}]

    @pytest.mark.parametrize("protocol", range(5))
    def test_code_is_never_reached(self, tmp_path, monkeypatch, protocol):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "evil.p").write_bytes(pickle.dumps([Evil()], protocol))
        with pytest.raises(DataError, match=r"evil\.p' .*posix\.system"):
            read_plain_pickle(tmp_path / "evil.p")
        assert not (tmp_path / "pickle-was-run").exists()

    @pytest.mark.parametrize("content", [b"", b"no pickle", b"\x80\x04]\x94(K", b"P1\n."])
    def test_damage_is_named(self, tmp_path, content):
        (tmp_path / "bad.p").write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.p"):
            read_plain_pickle(tmp_path / "bad.p")


REFS = [
    {
        "ref_id": 3,
        "ann_id": 30,
        "category_id": 1,
        "image_id": 300,
        "file_name": "COCO_train2014_000000000300_3.jpg",
        "split": "testA",
        "sent_ids": [8, 9],
        "sentences": [
            {"raw": "Man!", "sent": "man on the left", "sent_id": 8, "tokens": ["man"]},
            {"raw": "x", "sent": "the man", "sent_id": 9, "tokens": []},
        ],
    },
    {"ref_id": 4, "ann_id": 30, "image_id": 300, "split": "val", "sentences": [{"sent": "him", "sent_id": 10}]},
]
INSTANCES = {
    "annotations": [{"id": 30, "bbox": [10.5, 20, 30, 40]}],
    "images": [{"id": 300, "file_name": "COCO_train2014_000000000300.jpg", "width": 640, "height": 480}],
}


class TestRefCoco:
    @pytest.fixture
    def published(self, tmp_path):
        (tmp_path / "refcoco").mkdir()
        (tmp_path / "refcoco/refs(unc).p").write_bytes(pickle.dumps(REFS, 2))
        (tmp_path / "refcoco/instances.json").write_text(json.dumps(INSTANCES))
        return tmp_path

    def test_the_published_form(self, published):
        first, second = read_refcoco(published, "refcoco", "testA")
        assert (first.sample_id, first.expression, second.expression) == ("3-8", "man on the left", "the man")
        assert first.box_xyxy_px == (10.5, 20, 40.5, 60)
        assert first.image == "COCO_train2014_000000000300.jpg", "the ref's own file_name has an extra suffix"

    def test_the_form_of_json_lines(self, tmp_path, write):
        line = {"image": "a.jpg", "sent": "man on the left", "bbox": [10.5, 20, 40.5, 60], "width": 640, "height": 480}
        lines = [json.dumps(line | {"split": split}) + "\n" for split in ("testA", "val")]
        write("refcoco.jsonl", "".join(lines))
        (sample,) = read_refcoco(tmp_path, "refcoco", "val")
        assert (sample.sample_id, sample.expression, sample.image) == ("2", "man on the left", "a.jpg")
        assert sample.box_xyxy_px == (10.5, 20, 40.5, 60)
        assert (sample.width, sample.height) == (640, 480)

    @pytest.mark.parametrize(
        "changes",
        [{"bbox": [5, 5, 1, 9]}, {"bbox": [1, 2, 3]}, {"bbox": [1, 1, 900, 9]}, {"width": None}, {"sent": ...}],
    )
    def test_a_bad_line_is_named(self, tmp_path, write, changes):
        item = {"image": "a.jpg", "sent": "x", "bbox": [1, 2, 3, 4], "width": 9, "height": 9, "split": "val"} | changes
        item = {key: value for key, value in item.items() if value is not ...}
        write("refcoco+.jsonl", json.dumps(item) + "\n")
        with pytest.raises(DataError, match=r"line 1 of '.*refcoco\+\.jsonl'"):
            list(read_refcoco(tmp_path, "refcoco+", "val"))

    def test_wrong_names_and_missing_files(self, tmp_path):
        with pytest.raises(ConfigError, match="'testA'"):
            read_refcoco(tmp_path, "refcocog", "testA")
        with pytest.raises(ConfigError, match="'refcocoX'"):
            read_refcoco(tmp_path, "refcocoX", "val")
        with pytest.raises(DataError, match=r"refcoco\.jsonl .*refcoco/refs\(unc\)\.p"):
            read_refcoco(tmp_path, "refcoco", "val")

    def test_images_are_found_in_the_usual_folders(self, tmp_path, pictures):
        pictures("images/train2014", ["a.jpg"])
        assert find_image(tmp_path, "a.jpg").is_file()
        with pytest.raises(DataError, match=r"'b\.jpg'"):
            find_image(tmp_path, "b.jpg")


class TestVideoQa:
    def test_msvd_goes_through_its_mapping_file(self, tmp_path, write):
        write("test_qa.json", json.dumps([{"answer": "dog", "question": "who?", "video_id": 12, "id": 1}]))
        write("youtube_mapping.txt", "-4wsuPCjDBc_5_15 vid12\n")
        video = write("YouTubeClips/-4wsuPCjDBc_5_15.avi", "")
        (item,) = read_video_qa(tmp_path, "msvd-qa")
        assert (item.question_id, item.video, item.answer) == ("1", video, "dog")

    def test_msrvtt(self, tmp_path, write):
        line = {"answer": "yes", "question": "what?", "video_id": 7010, "id": 5, "category_id": 3}
        write("test_qa.json", json.dumps([line]))
        video = write("videos/video7010.mp4", "")
        (item,) = read_video_qa(tmp_path, "msrvtt-qa")
        assert (item.video, item.kind) == (video, "3")

    def test_tgif_is_tab_separated_whatever_its_ending_says(self, tmp_path, write):
        write(
            "Test_frameqa_question.csv",
            "gif_name\tquestion\tanswer\tvid_id\tkey\ttype\ntumblr_a\twho, here?\tcat\tID1\t27\t2\n",
        )
        gif = write("gifs/tumblr_a.gif", "")
        (item,) = read_video_qa(tmp_path, "tgif-qa")
        assert (item.video, item.question, item.answer, item.kind) == (gif, "who, here?", "cat", "2")

    @pytest.mark.parametrize("ending", ["mp4", "mkv", "webm"])
    def test_activitynet_joins_questions_and_answers(self, tmp_path, write, ending):
        write("test_q.json", json.dumps([{"video_name": "1QIUV7", "question": "is it?", "question_id": "v_1_3"}]))
        write("test_a.json", json.dumps([{"answer": "yes", "type": 3, "question_id": "v_1_3"}]))
        video = write(f"all/v_1QIUV7.{ending}", "")
        (item,) = read_video_qa(tmp_path, "activitynet-qa")
        assert (item.video, item.answer, item.kind) == (video, "yes", "3")

    def test_a_question_without_answer_video_or_field_is_named(self, tmp_path, write):
        write("test_q.json", json.dumps([{"video_name": "v", "question": "is it?", "question_id": "q1"}]))
        write("test_a.json", "[]")
        with pytest.raises(DataError, match=r"item 1 of .* asks 'q1'"):
            list(read_video_qa(tmp_path, "activitynet-qa"))
        write("test_qa.json", json.dumps([{"answer": "a", "question": "q", "video_id": 1, "id": 1}]))
        with pytest.raises(DataError, match="'video1'"):
            list(read_video_qa(tmp_path, "msrvtt-qa"))
        write("test_qa.json", json.dumps([{"answer": "a", "video_id": 1, "id": 1}]))
        with pytest.raises(DataError, match=r"item 1 of .* lacks question"):
            list(read_video_qa(tmp_path, "msrvtt-qa"))

    def test_unknown_set(self, tmp_path):
        with pytest.raises(ConfigError, match="'how2qa'"):
            read_video_qa(tmp_path, "how2qa")
