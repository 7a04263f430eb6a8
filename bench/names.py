"""``python -m bench.names``: things found by name in photos, and doubt about names that are not there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from elysium_core.calibration import calibration_error
from elysium_core.cli.options import DEFAULT_MODEL, DeviceOption, JsonOption
from elysium_core.cli.output import Progress, emit, say
from elysium_core.errors import ConfigError
from elysium_core.geometry import Box
from elysium_core.settings import SURE_FROM
from elysium_core.types import Grounding

if TYPE_CHECKING:
    from elysium_core.api import Elysium
    from elysium_core.data.photos.photo_records import PhotoObject
    from elysium_core.data.photos.photo_set import PhotoSet

SIZES = (0.1, 0.2, 0.3)
"""Least longer side of the objects of the three accuracies, as a share of the frame."""

_ABSENT = 5
_RIGHT_FROM, _LEAST_OVERLAP = 0.5, 0.05
_SEVERAL = (2, 3)
# Middles of two things of one name, as a share of the frame, from where their places can be told apart.
_APART = 0.2


@dataclass(slots=True)
class NameAnswers:
    """Answers about photos.

    Attributes:
        present: Answers about names that occur once: longer side of the object, score, IoU with it.
        right: Where two or three known names are shown: whether the box fits the asked thing best.
        absent: Scores of names that the photo does not show.
        named: Whether the object in a box got its name.
        placed: Of two things of one name, side by side or one above the other: whether the box fits the one asked for.
    """

    present: list[tuple[float, float, float]] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    absent: list[float] = field(default_factory=list)
    named: list[bool] = field(default_factory=list)
    placed: list[bool] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class NameFigures:
    """What the answers are worth; shares are 0..1.

    Attributes:
        asked: Names that occur once in a photo, at least a tenth of it long.
        accuracy: Share with IoU >= .5, for the objects of each of :data:`SIZES`.
        right: Share of boxes that fit the asked thing best, where two or three known names are shown.
        kept: Share whose score is not below the threshold.
        doubted: Share of absent names whose score is below it.
        named: Share of objects that got their name.
        placed: Share of boxes that fit the thing at the asked place best, of two of one name.
        calibration_error: ECE of the scores, absent names included.
    """

    asked: int
    accuracy: tuple[float, ...]
    right: float
    kept: float
    doubted: float
    named: float
    placed: float
    calibration_error: float


def command(
    photos: Annotated[
        list[Path], typer.Option("--photos", help="Folder of annotated photos (docs/data.md); repeatable.")
    ],
    model: Annotated[str, typer.Option("--model", "-m", help="A model with a closed vocabulary.")] = DEFAULT_MODEL,
    held_out: Annotated[
        bool, typer.Option("--held-out/--all", help="Only the photos that training leaves out, or all.")
    ] = True,
    name: Annotated[
        list[str] | None, typer.Option("--name", help="Ask only for this one of the model's names; repeatable.")
    ] = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Ask for every name that a photo shows once, for some that it does not show, and name every such thing."""
    from elysium_core.api import Elysium
    from elysium_core.data.photos.photo_set import PhotoSet

    loaded = Elysium.from_pretrained(model, device=device)
    if not loaded.runtime.family.settings.vocabulary:
        raise ConfigError(f"--model {model}: this measures models with a closed vocabulary; it has none")
    known = loaded.runtime.family.settings.vocabulary
    if unknown := [each for each in name or () if each not in known]:
        raise ConfigError(f"--name {unknown[0]}: the model knows {', '.join(known)}")
    chosen = PhotoSet.open(photos)
    figures = figures_of(ask_names(loaded, chosen.part(held_out=True) if held_out else chosen, name or ()))
    if json:
        emit(asdict(figures))
        return
    say(f"{figures.asked} names that occur once, threshold {SURE_FROM:g}")
    for least, share in zip(SIZES, figures.accuracy, strict=True):
        say(f"  IoU >= .5, object at least {least:g} of the frame  {share:6.1%}")
    say(f"  right thing among two or three names           {figures.right:6.1%}")
    say(f"  present names kept                             {figures.kept:6.1%}")
    say(f"  absent names doubted                           {figures.doubted:6.1%}")
    say(f"  things named                                   {figures.named:6.1%}")
    say(f"  of two of one name, the one at the asked place {figures.placed:6.1%}")
    say(f"  calibration error (ECE)                        {figures.calibration_error:6.3f}")


def ask_names(model: Elysium, photos: PhotoSet, chosen: Sequence[str] = ()) -> NameAnswers:
    """Ask about all photos that can be read, for all of the model's names or some; the others count as unknown."""
    names = {_plain(name): name for name in chosen or model.runtime.family.settings.vocabulary}
    answers, rng = NameAnswers(), np.random.default_rng(5)
    with Progress("photos", len(photos)) as progress:
        for index in range(len(photos)):
            progress.advance()
            image, objects = photos.read(index), photos.objects_of(index)
            if image is None or not objects:
                continue
            shown = [names.get(_plain(thing.name), "") for thing in objects]
            several = _SEVERAL[0] <= len({name for name in shown if name}) <= _SEVERAL[1]
            for target in _asked(shown, objects):
                found = model.ground(image, f"the {shown[target]}")
                _judge(answers, found, objects, shown, target, several=several)
                answers.named.append(model.describe(image, objects[target].box).strip(" .") == shown[target])
            for place, target, other in _pairs(shown, objects):
                found = model.ground(image, f"the {shown[target]} {place}")
                fits, others = (_overlap(found, objects[index].box) for index in (target, other))
                answers.placed.append(fits > max(others, _LEAST_OVERLAP))
            missing = [name for name in names.values() if name not in shown]
            for name in rng.permutation(missing)[:_ABSENT]:
                answers.absent.append(model.ground(image, f"the {name}").score)
    return answers


def _asked(shown: Sequence[str], objects: Sequence[PhotoObject]) -> Iterator[int]:
    """Objects whose name is known and occurs once, that are not difficult and not too small."""
    for number, (name, thing) in enumerate(zip(shown, objects, strict=True)):
        if name and shown.count(name) == 1 and not thing.difficult and _side(thing.box) >= SIZES[0]:
            yield number


def _pairs(shown: Sequence[str], objects: Sequence[PhotoObject]) -> Iterator[tuple[str, int, int]]:
    """Places of the two things of a name that occurs twice: words, index of the thing, index of the other."""
    for name in dict.fromkeys(shown):
        found = [index for index, each in enumerate(shown) if each == name]
        things = [objects[index] for index in found]
        if not name or len(found) != 2 or any(thing.difficult or _side(thing.box) < SIZES[0] for thing in things):
            continue
        for axis, places in enumerate((("on the left", "on the right"), ("at the top", "at the bottom"))):
            first, second = sorted(found, key=lambda index: _middle(objects[index].box)[axis])
            if _middle(objects[second].box)[axis] - _middle(objects[first].box)[axis] >= _APART:
                yield places[0], first, second
                yield places[1], second, first
                break


def _judge(
    answers: NameAnswers,
    found: Grounding,
    objects: Sequence[PhotoObject],
    shown: Sequence[str],
    target: int,
    *,
    several: bool,
) -> None:
    overlaps = [_overlap(found, thing.box) for thing in objects]
    answers.present.append((_side(objects[target].box), found.score, overlaps[target]))
    if several:
        rivals = [overlap for overlap, name in zip(overlaps, shown, strict=True) if name and name != shown[target]]
        answers.right.append(overlaps[target] > max([*rivals, _LEAST_OVERLAP]))


def figures_of(answers: NameAnswers) -> NameFigures:
    """Sum up answers.

    Raises:
        ConfigError: There is none.
    """
    if not answers.present:
        raise ConfigError("no photo shows a known name once; --photos needs annotated photos with names of the model")
    hits = [(side, overlap >= _RIGHT_FROM) for side, _, overlap in answers.present]
    scored = [(score, overlap >= _RIGHT_FROM) for _, score, overlap in answers.present]
    scored += [(score, False) for score in answers.absent]
    return NameFigures(
        asked=len(hits),
        accuracy=tuple(_share([hit for side, hit in hits if side >= least]) for least in SIZES),
        right=_share(answers.right),
        kept=_share([score >= SURE_FROM for _, score, _ in answers.present]),
        doubted=_share([score < SURE_FROM for score in answers.absent]),
        named=_share(answers.named),
        placed=_share(answers.placed),
        calibration_error=calibration_error([score for score, _ in scored], [right for _, right in scored]),
    )


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _overlap(found: Grounding, box: Box) -> float:
    return found.box.iou(box) if found.box is not None else 0.0


def _middle(box: Box) -> tuple[float, float]:
    return (box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2


def _side(box: Box) -> float:
    return max(box.width, box.height)


def _plain(name: str) -> str:
    return "".join(name.split()).casefold()


if __name__ == "__main__":
    from bench.app import run

    run("names")
