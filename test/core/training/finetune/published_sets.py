"""Small files of every published training set, in the form in which it is published."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 40, 20


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8))


def save_picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture().save(path)


def write_json(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def grit_item(key: str) -> dict[str, object]:
    """As img2dataset writes it: places in the caption are floats, the last number is the detector's score."""
    caption = "A café dog chases two dogs near a red barn"
    return {
        "key": key,
        "status": "success",
        "url": "https://example.org/a.jpg",
        "caption": caption,
        "width": WIDTH,
        "height": HEIGHT,
        "noun_chunks": [[0.0, 10.0, 0.1, 0.2, 0.5, 0.9, 0.8]],
        "ref_exps": [
            [0.0, 10.0, 0.1, 0.2, 0.5, 0.9, 0.8],
            [18.0, 26.0, 0.0, 0.0, 0.2, 0.2, 0.7],
            [18.0, 26.0, 0.5, 0.5, 0.8, 0.8, 0.7],
        ],
    }


def grit(root: Path) -> Path:
    """Two tar files for webdataset."""
    root.mkdir(parents=True)
    for shard, keys in enumerate((["000000000", "000000001"], ["000010000"])):
        with tarfile.open(root / f"{shard:05d}.tar", "w") as archive:
            for key in keys:
                buffer = io.BytesIO()
                picture().save(buffer, "JPEG")
                texts = {"jpg": buffer.getvalue(), "json": json.dumps(grit_item(key)).encode(), "txt": b"A cafe dog"}
                for ending, data in texts.items():
                    member = tarfile.TarInfo(f"{key}.{ending}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    return root


def cogvlm_sft(root: Path) -> Path:
    """One description and one conversation, in both languages."""
    said = {
        "llava_details-minigpt4_3500_formate": {"captions": [{"role": "caption", "content": "A beach with surfers."}]},
        "llava_instruction_multi_conversations_formate": {
            "conversations": [
                {"role": "user", "content": "What is it?"},
                {"role": "assistant", "content": "A mug."},
                {"role": "user", "content": "Of what colour?"},
                {"role": "assistant", "content": "Red."},
            ]
        },
    }
    for folder, content in said.items():
        save_picture(root / folder / "images/00000001.jpg")
        write_json(root / folder / "labels_en/00000001.json", content)
        write_json(root / folder / "labels_zh/00000001.json", {"captions": [{"role": "caption", "content": "海滩"}]})
    return root


def coco_qa(root: Path) -> Path:
    (root / "train").mkdir(parents=True)
    (root / "train/questions.txt").write_text("what is the dog 's colour ?\nwhere is the cat ?\n")
    (root / "train/answers.txt").write_text("brown\nsofa\n")
    (root / "train/img_ids.txt").write_text("300\n301\n")
    (root / "train/types.txt").write_text("2\n3\n")
    save_picture(root / "train2014/COCO_train2014_000000000300.jpg")
    save_picture(root / "val2014/COCO_val2014_000000000301.jpg")
    return root


def gqa(root: Path) -> Path:
    asked = {
        "07333408": {
            "imageId": "2375429",
            "question": "What is on the white wall?",
            "answer": "pipe",
            "fullAnswer": "The pipe is on the wall.",
            "isBalanced": True,
            "types": {"structural": "query"},
        },
        "07333405": {"imageId": "2375429", "question": "Ist das ein Café?", "answer": "yes"},
    }
    save_picture(root / "images/2375429.jpg")
    write_json(root / "train_balanced_questions.json", asked)
    return root


def visual7w(root: Path) -> Path:
    """Telling questions, and beside them pointing ones."""
    telling = {
        "qa_id": 1,
        "image_id": 7,
        "question": "What is red?",
        "multiple_choices": ["A", "B", "C"],
        "type": "what",
    }
    pointing = {"qa_id": 2, "image_id": 7, "question": "Which thing is red?", "multiple_choices": [4], "type": "which"}
    image = {"image_id": 7, "filename": "v7w_7.jpg"}
    box = {"box_id": 5, "name": "mug", "image_id": 7, "x": 4, "y": 2, "width": 20, "height": 10}
    unseen = {**image, "split": "test", "qa_pairs": [telling | {"answer": "unseen"}]}
    save_picture(root / "images/v7w_7.jpg")
    shown = [{**image, "split": "train", "qa_pairs": [telling | {"answer": "The mug."}]}, unseen]
    write_json(root / "dataset_v7w_telling.json", {"dataset": "visual7w-telling", "images": shown})
    shown = [{**image, "split": "train", "qa_pairs": [pointing | {"answer": 5}]}]
    write_json(root / "dataset_v7w_pointing.json", {"dataset": "visual7w-pointing", "images": shown, "boxes": [box]})
    return root / "dataset_v7w_telling.json"


def flickr30k_entities(root: Path) -> Path:
    """A caption with an entity of one box, one of two boxes, one without a box and one that is not shown."""
    (root / "Sentences").mkdir(parents=True)
    (root / "Annotations").mkdir()
    caption = (
        "[/EN#1/people A bearded man] sees [/EN#2/people two girls] at [/EN#3/scene a fair] in [/EN#0/notvisual it] .\n"
        "[/EN#1/bodyparts/people The man 's arm] waves .\n"
    )
    (root / "Sentences/65567.txt").write_text(caption)

    def thing(entity: int, *box: int) -> str:
        edges = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        return f"<object><name>{entity}</name><bndbox>{edges}</bndbox></object>"

    objects = thing(1, 5, 3, 24, 12) + thing(2, 1, 1, 9, 9) + thing(2, 20, 1, 29, 9)
    scene = "<object><name>3</name><scene>1</scene><nobndbox>0</nobndbox></object>"
    size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
    (root / "Annotations/65567.xml").write_text(f"<annotation>{size}{objects}{scene}</annotation>")
    (root / "train.txt").write_text("65567\n")
    save_picture(root / "flickr30k-images/65567.jpg")
    return root


def visual_genome(root: Path) -> Path:
    region = {"region_id": 1382, "image_id": 1, "x": 4, "y": 2, "width": 20, "height": 10}
    regions = [
        region | {"phrase": "the clock is green in colour."},
        region | {"phrase": "outside", "x": 400},
        region | {"phrase": " "},
    ]
    save_picture(root / "VG_100K_2/1.jpg")
    write_json(root / "region_descriptions.json", [{"id": 1, "regions": regions}, {"id": 2, "regions": []}])
    return root


def videochat(root: Path) -> Path:
    pairs = [{"q": "What happens?", "a": "A ball rolls."}, {"q": "And then?", "a": "It stops."}]
    (root / "videos").mkdir(parents=True)
    first, *others = (picture(index) for index in range(12))
    first.save(root / "videos/1022713978.gif", save_all=True, append_images=others)
    name = "050951_051000/1022713978.gif"
    return write_json(root / "videochat_instruct_11k.json", [{"video": name, "QA": pairs}])


SETS = {
    "grit": (grit, ""),
    "cogvlm-sft": (cogvlm_sft, ""),
    "coco-qa": (coco_qa, ""),
    "gqa": (gqa, "images"),
    "visual7w": (visual7w, "images"),
    "flickr30k-entities": (flickr30k_entities, "flickr30k-images"),
    "visual-genome": (visual_genome, ""),
    "videochat": (videochat, "videos"),
}
"""Reader -> what writes its set and returns the path of its annotations, and the folder of its pictures below it."""


def write_set(reader: str, root: Path) -> dict[str, str]:
    """Write one set below a folder; return path and media of its source."""
    write, media = SETS[reader]
    path = write(root / reader)
    return {"path": str(path), "media": str(root / reader / media)}
