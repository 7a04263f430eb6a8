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

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from elysium_core.errors import BackendError
from elysium_core.frames import Frame
from elysium_core.geometry import Box
from elysium_core.io.crop import Crop
from elysium_core.runtime import Runtime
from elysium_core.settings import TrackingConfig
from elysium_core.tracking.anchored_target import LIVE_TIMES, AnchoredTarget
from elysium_core.tracking.crop_finder import CropFinder, CropQuestion
from elysium_core.tracking.find import find_by_words
from elysium_core.tracking.find_parts import find_in_picture
from elysium_core.tracking.model_tracker import LiveTracker
from elysium_core.tracking.target import Target
from elysium_core.types import Grounding

# What was found after a doubt must lead back to the target with this IoU at least.
_LEADS_BACK_IOU = 0.5
# Highest score, as a share of the threshold, of a box that leads elsewhere.
_UNCONFIRMED = 0.45
# Two targets whose boxes overlap more than this share one object.
_SAME_OBJECT_IOU = 0.7


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
        self._finder = CropFinder(runtime, sizes, self._stats, self._counters)
        self._followed: dict[str, AnchoredTarget] = {}

    def reset(self) -> None:
        """Forget all targets and frames; ids are still not reused."""
        super().reset()
        self._followed = {}

    def _forget(self, target_id: str) -> None:
        super()._forget(target_id)
        self._followed.pop(target_id, None)

    def _look(self, frame: Frame, now_s: float) -> dict[str, Grounding]:
        given = self._place_given(frame)
        seen = self._exclude(self._follow(frame, [name for name in self._followed if name not in given])) | given
        self._search(frame, now_s, seen)
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
        anchor = self._finder.anchor(frame, box)
        around = Crop.around(box, frame.width, frame.height, LIVE_TIMES)
        inside = around.inside(box)
        if anchor is not None and inside is not None:
            home = self._finder.picture(frame, around), inside
            self._followed[name] = AnchoredTarget(anchor, home, box)

    def _follow(self, frame: Frame, names: list[str]) -> dict[str, Grounding]:
        """Where targets are in live crops around their last boxes."""
        crops = {name: self._followed[name].live_crop(frame) for name in names}
        pictures = {name: self._finder.picture(frame, crop) for name, crop in crops.items()}
        answers = self._ask(crops, pictures)
        doubtful = {name: answers[name] for name in names if self._followed[name].must_be_checked(answers[name])}
        checked, elsewhere = self._confirmed(frame, doubtful)
        sure, seen = self._config.score_threshold, {}
        for name in names:
            followed, answer = self._followed[name], checked.get(name, answers[name])
            if name not in doubtful:
                inside = None if answer.box is None else crops[name].inside(answer.box)
                followed.remember(pictures[name], inside, answer.score)
            seen[name] = followed.stay(answer) if name in elsewhere else followed.follow(answer, sure)
        return seen

    def _ask(self, crops: Mapping[str, Crop], pictures: Mapping[str, NDArray[np.uint8]]) -> dict[str, Grounding]:
        """Ask where targets are in live crops. Boxes are boxes of the frame."""
        questions = {}
        for name, crop in crops.items():
            followed = self._followed[name]
            guess = crop.inside(followed.box) or followed.anchor.box
            questions[name] = CropQuestion(followed.anchor, pictures[name], guess)
        answers = self._finder.find(questions, self._config.max_new_tokens)
        return {name: _in_frame(crops[name], answer) for name, answer in answers.items()}

    def _confirmed(self, frame: Frame, found: Mapping[str, Grounding]) -> tuple[dict[str, Grounding], set[str]]:
        """Check what was found after a doubt by the way back.

        The way back: what is in the box is the anchor, and the last picture in which the target was surely seen is the
        live crop. A look-alike or a piece of background seldom leads back to the target's box.

        Returns:
            The answers, with lower scores where a sure one is not confirmed; names of those that lead elsewhere.
        """
        questions = {}
        for name, answer in found.items():
            box = answer.box if self._is_sure(answer) else None
            anchor = None if box is None else self._finder.anchor(frame, box)
            if anchor is not None:
                questions[name] = CropQuestion(anchor, *self._followed[name].home)
        checked, elsewhere, sure = dict(found), set(), self._config.score_threshold
        for name, back in self._finder.find(questions, self._config.max_new_tokens).items():
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
        """Look for targets by words in the whole frame, the first time also in its quarters if the model wants that."""
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

    def _look_around(self, frame: Frame, names: list[str]) -> dict[str, Grounding]:
        """Look for targets without words in larger and larger crops around their last places, one of them a frame."""
        crops = {name: self._followed[name].search_crop(frame) for name in names}
        pictures = {name: self._finder.picture(frame, crop) for name, crop in crops.items()}
        found, _ = self._confirmed(frame, self._ask(crops, pictures))
        for name, answer in found.items():
            if answer.box is not None and self._is_sure(answer):
                self._followed[name].found_at(answer.box)
        return found


def _in_frame(crop: Crop, answer: Grounding) -> Grounding:
    """An answer about a crop as one about its frame."""
    box = None if answer.box is None else crop.to_frame(answer.box)
    if box is None:
        return replace(answer, box=None, score=0.0, reason=answer.reason or "its box lies outside the frame")
    return replace(answer, box=box)
