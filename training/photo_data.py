"""Check photos, cut objects out of them, look at training pairs, and add a teacher's names.

    python training/photo_data.py check PHOTOS...
    python training/photo_data.py cutouts PHOTOS... --out CUTOUTS
    python training/photo_data.py pairs PHOTOS... --cutouts CUTOUTS --out pairs.png
    python training/photo_data.py merge PHOTOS --teacher boxes.jsonl --name cup --name "wine glass" --out merged.jsonl

PHOTOS are folders: PASCAL VOC, Caltech-101, or any pictures; docs/data.md says where they are published. A killed run
of `cutouts` is continued by the same command.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

from elysium_core.data.photos.contact_sheet import pair_sheet
from elysium_core.data.photos.cutout_cache import CutoutCache, make_cutouts
from elysium_core.data.photos.cutouts import CutoutLibrary
from elysium_core.data.photos.pair_generator import PairGenerator
from elysium_core.data.photos.photo_set import PhotoSet
from elysium_core.data.photos.teacher_merge import merge_teacher
from elysium_core.errors import ElysiumError
from elysium_core.io.image import write_image


def main() -> int:
    """Run the command; 0 = done, 2 = bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="check | cutouts | pairs | merge")
    check = commands.add_parser("check", help="read every picture and count what is there")
    check.set_defaults(run=_check)
    cutouts = commands.add_parser("cutouts", help="cut objects out")
    cutouts.add_argument("--out", type=Path, required=True, help="cache folder")
    cutouts.add_argument("--most", type=int, default=0, help="try only so many objects; 0 = all")
    cutouts.set_defaults(run=_cutouts)
    pairs = commands.add_parser("pairs", help="draw a sheet of training pairs")
    pairs.add_argument("--cutouts", type=Path, help="cache folder; without it, cut-outs are the package's sprites")
    pairs.add_argument("--seed", type=int, default=0)
    pairs.add_argument("--count", type=int, default=60, help="number of pairs (60)")
    pairs.add_argument("--out", type=Path, required=True, help="picture file")
    pairs.set_defaults(run=_pairs)
    for command in (check, cutouts, pairs):
        command.add_argument("photos", type=Path, nargs="+", help="folders of photos")
    merge = commands.add_parser("merge", help="add a teacher's boxes of names that the annotations lack")
    merge.add_argument("photos", type=Path, help="folder of photos")
    merge.add_argument("--teacher", type=Path, required=True, help="boxes that training/teacher_boxes.py wrote")
    merge.add_argument("--name", action="append", required=True, help="a further name; repeatable")
    merge.add_argument("--out", type=Path, required=True, help="JSON-lines file for data.teachers of a recipe")
    merge.set_defaults(run=_merge)
    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; the same command continues\n")
        return 130
    except ElysiumError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _check(arguments: argparse.Namespace) -> None:
    photos = PhotoSet.open(arguments.photos)
    usable = sum(photos.read(index) is not None for index in range(len(photos)))
    names = Counter(photos.names[name] for name in photos.objects.name)
    sys.stdout.write(f"{usable} of {len(photos)} photos can be used, {len(photos.objects)} objects\n")
    sys.stdout.writelines(f"{count:8} {name}\n" for name, count in names.most_common())
    sys.stdout.write(f"{photos.report}\n")


def _cutouts(arguments: argparse.Namespace) -> None:
    photos = PhotoSet.open(arguments.photos)
    for done, total in make_cutouts(photos, arguments.out, most=arguments.most):
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{done} of {total} objects")
    cache = CutoutCache(arguments.out)
    sys.stdout.write(f"\n{len(cache)} cut-outs of {cache.tried} objects; rejected:\n")
    sys.stdout.writelines(f"{count:8} {reason}\n" for reason, count in cache.rejected.most_common())


def _pairs(arguments: argparse.Namespace) -> None:
    photos = PhotoSet.open(arguments.photos)
    cache = CutoutCache(arguments.cutouts) if arguments.cutouts else None
    generator = PairGenerator(photos, CutoutLibrary(cache))
    started = time.process_time()
    drawn = [generator.draw(arguments.seed, index) for index in range(max(1, arguments.count))]
    rate = len(drawn) / (time.process_time() - started)
    write_image(arguments.out, pair_sheet(drawn))
    sys.stdout.write(f"{arguments.out}: {rate:.0f} pairs a second on one core; {photos.report}\n")


def _merge(arguments: argparse.Namespace) -> None:
    report = merge_teacher(arguments.photos, arguments.teacher, arguments.name, arguments.out)
    sys.stdout.writelines(f"{report.added[name]:8} {name}\n" for name in arguments.name)
    sys.stdout.write(f"{report.unsure:8} unsure boxes, marked as difficult\n")
    sys.stdout.write(f"{report.without_box:8} photos of these categories without a box\n")
    sys.stdout.write(f"{arguments.out}: {report.photos}\n")


if __name__ == "__main__":
    sys.exit(main())
