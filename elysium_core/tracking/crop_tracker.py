"""The live tracker of models that follow in crops.

Each target has an anchor crop, made where it was given or found. In every frame the model is shown the anchor and a
live crop around the target's last box, and writes the box in the live crop. Crops bind a frame to the one before:
a box cannot leave for a look-alike at the other end of the picture. The crops of all targets are encoded in one batch
and asked about in one packed pass.

Words are answered in whole frames; the first time also in their quarters, if the model asks for it. A target that is
lost is looked for by its words; one without words is looked for in larger crops around its last place. After a doubt
or a jump a box counts only if what is in it, taken as an anchor, leads back to the target's box in the
last picture where it was surely seen.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from elysium_core.engine.engine import Request
from elysium_core.errors import BackendError
from elysium_core.families.base import Anchor, CropSizes, Seen
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.io.crop import Crop
from elysium_core.prompt.questions import SOT
from elysium_core.runtime import Runtime
from elysium_core.settings import TrackingConfig
from elysium_core.tracking.draft import AnswerDraft
from elysium_core.tracking.find import find_by_words
from elysium_core.tracking.find_parts import find_in_picture
from elysium_core.tracking.model_tracker import LiveTracker
from elysium_core.tracking.target import Target
from elysium_core.types import Grounding

_LIVE_TIMES = 2.0
# While a target is not sure its live crop grows, so that what moves fast is not missed.
_GROWTH = 1.1
_WIDEST = 1.6
# How fast the size follows a sure answer: sizes change slowly, and a step of box text is 4 % of a target's side.
_SIZE_RATE = 0.4
# The live crop also follows an answer that is not sure, down to this share of the threshold: a target that turns or is
# half hidden goes on moving.
_FOLLOWED_FROM = 0.5
# Live crops of a target that is lost, each of them in its turn: their length over that of a usual one.
_SEARCH_TIMES = (1.0, 2.0, 4.0)
# After so many answers that were not sure, a sure one must be confirmed; and so must one that overlaps less than this
# with the last box.
_CHECKED_AFTER = 2
_JUMP_IOU = 0.3
# What was found after a loss must lead back to the target with this IoU at least.
_LEADS_BACK_IOU = 0.5
# From this score on, a live picture takes the place of the one that the way leads back to: things change.
_HOME_FROM = 0.8
# Highest score, as a share of the threshold, of a box that leads elsewhere.
_UNCONFIRMED = 0.45
# Two targets whose boxes overlap more than this share one object.
_SAME_OBJECT_IOU = 0.7
_SPARE_TOKENS = 16
_FRAMES = 2


@dataclass(slots=True)
class _Followed:
    """A target that has an anchor.

    Attributes:
        anchor: Made where it was given or found.
        home: A live picture in which its place is known well, and its box there.
        box: Its last box that was followed.
        wide: Length of its live crop over that of a usual one.
        turn: Number of times it was looked for while it was lost.
        doubts: Answers since the last sure one.
    """

    anchor: Anchor
    home: tuple[NDArray[np.uint8], Box]
    box: Box
    wide: float = 1.0
    turn: int = 0
    doubts: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """Where is the object of an anchor in a picture?

    Attributes:
        anchor: The object.
        picture: RGB uint8, square.
        guess: Where it may be; a good guess saves passes and changes no answer.
    """

    anchor: Anchor
    picture: NDArray[np.uint8]
    guess: Box


class CropTracker(LiveTracker):
    """Follows targets through one stream in crops (protocol: :class:`elysium_core.types.Tracker`).

    Args:
        runtime: A model that follows in crops.
        config: Settings; ``window``, ``clip_length`` and ``draft_tokens`` have no effect here.

    Raises:
        BackendError: The model follows in whole frames.
    """

    def __init__(self, runtime: Runtime, config: TrackingConfig) -> None:
        super().__init__(runtime, config)
        sizes = runtime.family.crop_sizes
        if sizes is None:
            raise BackendError("this model follows in whole frames, not in crops")
        self._sizes: CropSizes = sizes
        self._followed: dict[str, _Followed] = {}

    def reset(self) -> None:
        """Forget all targets and frames; ids are still not reused."""
        super().reset()
        self._followed = {}

    def _forget(self, target_id: str) -> None:
        super()._forget(target_id)
        self._followed.pop(target_id, None)

    def _observe(self, frame: Frame, now_s: float) -> dict[str, Grounding]:
        """One answer a target, whatever fails."""
        self._stats.encode_s, started = 0.0, time.perf_counter()
        try:
            given = self._place_given(frame)
            seen = self._exclude(self._follow(frame, [name for name in self._followed if name not in given])) | given
            self._search(frame, now_s, seen)
        except BackendError as error:
            self._stats.failure = error
            self._stats.failures += 1
            seen = {name: Grounding(None, 0.0, reason=str(error)) for name in self._targets}
        self._stats.generate_s = time.perf_counter() - started - self._stats.encode_s
        self._count_engine()
        for name in self._targets:
            answer = seen.setdefault(name, Grounding(None, 0.0, reason="there is nothing to search it by"))
            if answer.box is None:
                failures = self._stats.parse_failures
                failures[answer.reason] = failures.get(answer.reason, 0) + 1
        return seen

    def _place_given(self, frame: Frame) -> dict[str, Grounding]:
        """Anchors for the boxes that were given; a box refers to the newest frame, before the first to this one."""
        shown = self._newest or frame
        for name, box in self._given.items():
            self._anchor(name, shown, box)
        given, self._given = self._given, {}
        return {name: Grounding(box, 1.0) for name, box in given.items()} if shown is frame else {}

    def _anchor(self, name: str, frame: Frame, box: Box) -> None:
        """Follow a target from a frame in which its box is known."""
        anchor = self._anchor_of(frame, box)
        around = Crop.around(box, frame.width, frame.height, _LIVE_TIMES)
        inside = around.inside(box)
        if anchor is not None and inside is not None:
            home = around.cut(frame.image, self._sizes.live_px), inside
            self._followed[name] = _Followed(anchor, home, box)

    def _anchor_of(self, frame: Frame, box: Box) -> Anchor | None:
        """The anchor of a box; None if no pixel of it is in the frame."""
        crop = Crop.around(box, frame.width, frame.height)
        inside = crop.inside(box)
        if inside is None:
            return None
        started = time.perf_counter()
        (anchor,) = self._runtime.encode_anchors([crop.cut(frame.image, self._sizes.anchor_px)], [inside])
        self._count_pictures(1, started)
        return anchor

    def _follow(self, frame: Frame, names: list[str]) -> dict[str, Grounding]:
        """Where targets are in live crops around their last boxes."""
        crops = {name: self._live_crop(frame, self._followed[name]) for name in names}
        pictures = self._pictures(frame, crops)
        answers = self._look(crops, pictures)
        strange = {name: answers[name] for name in names if self._is_strange(name, answers[name])}
        checked, elsewhere = self._confirmed(frame, strange)
        for name, answer in answers.items():
            box = None if answer.box is None else crops[name].inside(answer.box)
            if name not in strange and box is not None and answer.score >= _HOME_FROM:
                self._followed[name].home = pictures[name], box
        return {name: self._take(name, checked.get(name, answers[name]), name in elsewhere) for name in names}

    def _is_strange(self, name: str, answer: Grounding) -> bool:
        followed = self._followed[name]
        is_jump = answer.box is not None and answer.box.iou(followed.box) < _JUMP_IOU
        return is_jump or followed.doubts >= _CHECKED_AFTER

    def _live_crop(self, frame: Frame, followed: _Followed, times: float = 1.0) -> Crop:
        return Crop.around(followed.box, frame.width, frame.height, _LIVE_TIMES * followed.wide * times)

    def _pictures(self, frame: Frame, crops: Mapping[str, Crop]) -> dict[str, NDArray[np.uint8]]:
        return {name: crop.cut(frame.image, self._sizes.live_px) for name, crop in crops.items()}

    def _look(self, crops: Mapping[str, Crop], pictures: Mapping[str, NDArray[np.uint8]]) -> dict[str, Grounding]:
        """Ask where targets are in live crops. Boxes are boxes of the frame."""
        questions = {}
        for name, crop in crops.items():
            followed = self._followed[name]
            questions[name] = _Question(
                followed.anchor, pictures[name], crop.inside(followed.box) or followed.anchor.box
            )
        return {name: _in_frame(crops[name], answer) for name, answer in self._ask(questions).items()}

    def _confirmed(self, frame: Frame, found: Mapping[str, Grounding]) -> tuple[dict[str, Grounding], set[str]]:
        """Check what was found after a doubt by the way back.

        The way back: what is in the box is the anchor, and the last picture in which the target was surely seen is the
        live crop. A look-alike or a piece of background seldom leads back to the target's box.

        Returns:
            The answers, with lower scores where a sure one is not confirmed; names of those that lead elsewhere.
        """
        questions = {}
        for name, answer in found.items():
            anchor = self._anchor_of(frame, answer.box) if answer.box is not None and self._is_sure(answer) else None
            if anchor is not None:
                questions[name] = _Question(anchor, *self._followed[name].home)
        checked, elsewhere, sure = dict(found), set(), self._config.score_threshold
        for name, back in self._ask(questions).items():
            _, home = self._followed[name].home
            score = found[name].score
            if back.box is None or back.box.iou(home) < _LEADS_BACK_IOU:
                elsewhere.add(name)
                score = min(score, sure * _UNCONFIRMED)
            elif score * back.score < sure:
                score *= back.score
            else:  # both are right; the weaker one counts
                score = min(score, back.score)
            checked[name] = replace(found[name], score=score)
        return checked, elsewhere

    def _ask(self, questions: Mapping[str, _Question]) -> dict[str, Grounding]:
        """Ask where objects are in pictures: one batch, one packed pass; boxes are those of the pictures."""
        if not questions:
            return {}
        started = time.perf_counter()
        asked = list(questions.values())
        live = self._runtime.encode_crops([each.picture for each in asked], [each.anchor for each in asked])
        self._count_pictures(len(asked), started)
        requests = [self._request(each, seen) for each, seen in zip(asked, live, strict=True)]
        answers = self._runtime.new_engine(self._counters).answer(requests)
        steps, scores = [seen.steps for seen in live], self._runtime.family.settings.follow_scores
        return {
            name: self._runtime.read(answer, _FRAMES, step, scores).at(1)
            for name, answer, step in zip(questions, answers, steps, strict=True)
        }

    def _request(self, question: _Question, live: Seen) -> Request:
        """The anchor, the live crop, the question, and the known box of the anchor."""
        family, anchor = self._runtime.family, question.anchor
        grammar = family.grammar
        box = grammar.write(anchor.box, anchor.seen.steps)
        asked = family.question(SOT, box=box)
        guess = grammar.answer([anchor.box, question.guess], live.steps)
        known = grammar.beginning([anchor.box], live.steps)
        draft = AnswerDraft(self._runtime.tokenizer, grammar, known, guess)
        ids = [*family.conversation(asked), *draft.given_ids]
        rows = torch.cat([family.appended(anchor.seen, 1), family.appended(live, 2), family.embed(ids)])
        return Request(rows, draft, min(draft.expected_tokens + _SPARE_TOKENS, self._config.max_new_tokens))

    def _take(self, name: str, answer: Grounding, leads_elsewhere: bool) -> Grounding:
        """A sure answer moves the target; one that leads elsewhere does not."""
        followed, box = self._followed[name], answer.box
        sure = self._config.score_threshold
        if box is None or leads_elsewhere or answer.score < sure * _FOLLOWED_FROM:
            followed.wide = min(_WIDEST, followed.wide * _GROWTH)
            followed.doubts += 1
            return answer
        rate = _SIZE_RATE
        if answer.score >= sure:
            followed.wide, followed.turn, followed.doubts = max(1.0, followed.wide / _GROWTH), 0, 0
        else:
            rate *= answer.score / sure
            followed.doubts += 1
        followed.box = _resized(followed.box, box, rate)
        return replace(answer, box=followed.box)

    def _exclude(self, seen: dict[str, Grounding]) -> dict[str, Grounding]:
        """Of two targets on one object, the one with the higher score keeps it."""
        kept: dict[str, Grounding] = {}
        for name in sorted(seen, key=lambda name: -seen[name].score):
            better = self._who_has(seen[name].box, kept)
            kept[name] = Grounding(None, 0.0, reason=f"target {better} is at the same place") if better else seen[name]
        return {name: kept[name] for name in seen}

    def _who_has(self, box: Box | None, seen: Mapping[str, Grounding]) -> str:
        """The target that surely is at a place; empty if none is."""
        for name, answer in seen.items():
            there = answer.box if self._is_sure(answer) else None
            if box is not None and there is not None and box.iou(there) > _SAME_OBJECT_IOU:
                return name
        return ""

    def _is_sure(self, answer: Grounding) -> bool:
        return answer.is_sure(self._config.score_threshold)

    def _search(self, frame: Frame, now_s: float, seen: dict[str, Grounding]) -> None:
        """Look again for targets that are lost, and for those whose words are due to be asked again."""
        due = [name for name, target in self._targets.items() if self._is_due(name, target, now_s, seen)]
        words = {name: expression for name in due if (expression := self._targets[name].expression)}
        found = self._find(frame, words, now_s)
        found |= self._look_around(frame, [name for name in due if name in self._followed and name not in words])
        for name, answer in found.items():
            known = seen.get(name, answer)
            others = {other: given for other, given in seen.items() if other != name}
            better = self._is_sure(answer) and (known is answer or answer.score > known.score)
            if not better or self._who_has(answer.box, others):
                seen.setdefault(name, answer)
                continue
            seen[name] = answer
            if name in words and answer.box is not None:
                self._anchor(name, frame, answer.box)

    def _is_due(self, name: str, target: Target, now_s: float, seen: Mapping[str, Grounding]) -> bool:
        if name not in seen:
            return True
        if target.lost_at_s is not None and not self._is_sure(seen[name]):
            return True
        period, asked = self._config.reground_period_s, target.asked_at_s
        if not target.expression or period <= 0:
            return False
        if asked is None:
            target.asked_at_s = now_s  # given by a box and words: the words wait for their first turn
            return False
        return now_s // period > asked // period

    def _find(self, frame: Frame, words: Mapping[str, str], now_s: float) -> dict[str, Grounding]:
        """Look for targets by their words: in the whole frame, and for the first time as it suits the model best."""
        if not words:
            return {}
        is_first = any(self._targets[name].asked_at_s is None for name in words)
        for name in words:
            self._targets[name].asked_at_s = now_s
        guesses = {name: self._followed[name].box for name in words if name in self._followed}
        if is_first:
            return find_in_picture(self._runtime, frame.image, words, guesses, self._counters, self._encode)
        (whole,) = self._encode([frame.image])
        return find_by_words(self._runtime, whole, words, guesses, self._counters)

    def _encode(self, images: Sequence[NDArray[np.uint8]]) -> list[Seen]:
        started = time.perf_counter()
        seen = self._runtime.encode_frames(images)
        self._count_pictures(len(images), started)
        return seen

    def _look_around(self, frame: Frame, names: list[str]) -> dict[str, Grounding]:
        """Look for targets without words in larger and larger crops around their last places, one of them a frame."""
        crops = {}
        for name in names:
            followed = self._followed[name]
            crops[name] = self._live_crop(frame, followed, _SEARCH_TIMES[followed.turn % len(_SEARCH_TIMES)])
            followed.turn += 1
        found, _ = self._confirmed(frame, self._look(crops, self._pictures(frame, crops)))
        for name, answer in found.items():
            if answer.box is not None and self._is_sure(answer):
                self._followed[name].box, self._followed[name].wide = answer.box, 1.0
        return found

    def _count_pictures(self, count: int, started: float) -> None:
        self._stats.encode_s += time.perf_counter() - started
        self._stats.vision_encodes += count


def _in_frame(crop: Crop, answer: Grounding) -> Grounding:
    """An answer about a crop as one about its frame."""
    box = None if answer.box is None else crop.to_frame(answer.box)
    if box is None:
        return replace(answer, box=None, score=0.0, reason=answer.reason or "its box lies outside the frame")
    return replace(answer, box=box)


def _resized(last: Box, new: Box, rate: float) -> Box:
    """The place of a new box with a size between that of the last box (rate 0) and its own (1), cut to the frame."""
    width = last.width + rate * (new.width - last.width)
    height = last.height + rate * (new.height - last.height)
    x, y = new.center
    left, top = max(0.0, x - width / 2), max(0.0, y - height / 2)
    return Box(left, top, min(1.0, x + width / 2), min(1.0, y + height / 2))
