"""Label a folder of photos with a detector, for `data.teachers` of a recipe.

    python training/teacher_boxes.py PHOTOS --onnx yolox_nano.onnx --out teacher.jsonl
    python training/teacher_boxes.py PHOTOS --zero-shot google/owlv2-base-patch16 --names names.txt --out teacher.jsonl

`names.txt` has one name a line. A killed run is continued by the same command. docs/data.md says where detectors are
published.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from elysium_core.data.photos.photo_report import PhotoReport
from elysium_core.data.photos.teacher_detectors import COCO_NAMES, TeacherDetector, YoloxDetector, ZeroShotDetector
from elysium_core.data.photos.teacher_run import label_photos
from elysium_core.errors import ConfigError, ElysiumError


def main() -> int:
    """Run the command; 0 = done, 2 = bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, help="folder of pictures")
    teacher = parser.add_mutually_exclusive_group(required=True)
    teacher.add_argument("--onnx", type=Path, help="a YOLOX graph")
    teacher.add_argument("--zero-shot", help="an open-vocabulary detector: a folder, or the id of a pulled model")
    parser.add_argument("--names", type=Path, help="names of the classes, one a line; by default COCO's 80")
    parser.add_argument("--least-score", type=float, default=0.3, help="boxes with a lower score are left out (0.3)")
    parser.add_argument("--device", default="cpu", help="of an open-vocabulary detector (cpu)")
    parser.add_argument("--out", type=Path, required=True, help="JSON-lines file")
    arguments = parser.parse_args()
    report = PhotoReport()
    try:
        for done, total in label_photos(_detector(arguments), arguments.photos, arguments.out, report):
            if sys.stderr.isatty():
                sys.stderr.write(f"\r{done} of {total} pictures")
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; the same command continues\n")
        return 130
    except ElysiumError as error:
        sys.stderr.write(f"\n{error}\n")
        return 2
    sys.stderr.write(f"\n{arguments.out}: {report}\n")
    return 0


def _detector(arguments: argparse.Namespace) -> TeacherDetector:
    if not 0 <= arguments.least_score <= 1:
        raise ConfigError(f"--least-score {arguments.least_score:g} is not in 0..1")
    names = _names(arguments.names) if arguments.names else COCO_NAMES
    if arguments.onnx:
        return YoloxDetector(arguments.onnx, names, arguments.least_score)
    return ZeroShotDetector(arguments.zero_shot, names, arguments.least_score, arguments.device)


def _names(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read names from {str(path)!r}: {error}") from error
    return tuple(line.strip() for line in lines if line.strip())


if __name__ == "__main__":
    sys.exit(main())
