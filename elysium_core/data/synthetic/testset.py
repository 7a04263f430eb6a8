"""The definition of the frozen test set. Nothing here may ever change; a new set gets new names.

Five parts, all of 30-frame clips on backgrounds that are never trained on, with smaller steps
between frames than in training:

``test``: the first forty names; 1, 2, 3 and 4 objects in turn.
``test-unseen``: sprites that were never trained on, to be tracked from a box.
``test-vanishing``: one object disappears and does not come back.
``test-words``: all names, some objects dyed, some clips with two objects of one name, to be
found by name, colour, size or place.
``test-small``: like ``test``, but with small objects in larger frames, at the frame rate of a camera.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from elysium_core.data.synthetic.assets import held_out_names, load_backgrounds, trainable_names
from elysium_core.data.synthetic.clips import ClipGenerator, Sample, SyntheticClip
from elysium_core.data.synthetic.scene import SceneConfig

FRAMES = 30
GAP = (0.5, 1.2)
# About 30 to 15 Hz.
_SMALL_GAP = (0.06, 0.12)
SIDE_PX = 128
SMALL_SIDE_PX = 384
OBJECT_COUNTS = (1, 2, 3, 4)
_SEED = 20240416
# Fewest frames in which a vanishing object is there, and in which it is gone.
_SHORTEST_PRESENCE, SHORTEST_ABSENCE = 5, 10
_CLEAR = 0.25


@dataclass(frozen=True)
class FrozenPart:
    """One part of the test set.

    Attributes:
        name: Name of the part; its clips are ``<name>-0000`` and so on.
        clips: Number of clips.
        names: Names of the sprites that occur.
        number: Number of the part, for its seeds.
        vanishing: One object of each clip disappears.
        twins: Every second clip of several objects has two with the same name, and objects
            may be dyed.
        small: Objects are .05 to .12 of the side of larger frames and move little between frames.
    """

    name: str
    clips: int
    names: tuple[str, ...]
    number: int
    vanishing: bool = False
    twins: bool = False
    small: bool = False

    def clip_name(self, index: int) -> str:
        """Name of clip ``index``."""
        return f"{self.name}-{index:04d}"

    def draw(self, index: int) -> Sample:
        """Draw clip ``index``, 0..clips-1; it is always the same."""
        self._generator.reseed(_SEED, self.number, index)
        objects = OBJECT_COUNTS[index % len(OBJECT_COUNTS)]
        while True:
            clip = self._generator.draw(FRAMES, objects, _SMALL_GAP if self.small else GAP)
            targets = vanishing_targets(clip) if self.vanishing else clip.targets
            if targets:
                return Sample(self.clip_name(index), clip, tuple(targets))

    @property
    def side_px(self) -> int:
        """Side of its frames [px]."""
        return SMALL_SIDE_PX if self.small else SIDE_PX

    @cached_property
    def _generator(self) -> ClipGenerator:
        # All values are written out: the defaults are for training and may change.
        scene = SceneConfig(
            side_px=self.side_px,
            min_side=0.05 if self.small else 0.16,
            max_side=0.12 if self.small else 0.5,
            speed=0.06,
            scale_rate=0.05,
            spin=0.06,
            tilt=0.35,
            procedural_share=0.0,
            vanish_share=1.0 if self.vanishing else 0.0,
            twin_share=0.5 if self.twins else 0.0,
            dye_share=0.3 if self.twins else 0.0,
            aspects=(1.0, 0.75, 0.5625),
        )
        return ClipGenerator(self.names, load_backgrounds("test", side_px=256), _SEED, scene)


def gone_from(clip: SyntheticClip, target: int) -> int | None:
    """Return the frame from which on an object is invisible; None if it is visible in the last frame."""
    seen = np.flatnonzero(clip.visible[target] > 0)
    first_gone = int(seen[-1]) + 1 if len(seen) else 0
    return first_gone if first_gone < len(clip.images) else None


def vanishing_targets(clip: SyntheticClip) -> list[int]:
    """Return the objects that are clearly visible up to some frame and then gone, both for long enough."""
    found = []
    for target in clip.vanishing:
        gone = gone_from(clip, target)
        if gone is None or not _SHORTEST_PRESENCE <= gone <= len(clip.images) - SHORTEST_ABSENCE:
            continue
        if clip.visible[target, :gone].min() >= _CLEAR:
            found.append(target)
    return found


_FIRST_NAMES = 40
TEST = FrozenPart("test", 200, trainable_names()[:_FIRST_NAMES], number=1)
UNSEEN = FrozenPart("test-unseen", 100, held_out_names(), number=2)
VANISHING = FrozenPart("test-vanishing", 60, trainable_names()[:_FIRST_NAMES], number=3, vanishing=True)
WORDS = FrozenPart("test-words", 100, trainable_names(), number=4, twins=True)
SMALL = FrozenPart("test-small", 60, trainable_names()[:_FIRST_NAMES], number=5, small=True)
PARTS = (TEST, UNSEEN, VANISHING, WORDS, SMALL)
"""The whole test set."""


FINGERPRINTS = {
    "test-0000": "050fb871105e8f8d7ad098353471c79bb62a835894729b5905819f3bbba4b2c8",
    "test-0001": "08e861143cfb0fbe651cb8a3070ae3c2b702daa3a7158ab078f332d7a4a87035",
    "test-0003": "759f5b83317be08d481cb6d9fc8ee529d64320d0a5d95c6e3dbc72143f6ab6d4",
    "test-unseen-0000": "3700cd9ca63bcec19840ad9b9511f86540b8efae706cc5899a33a2988f99d9ba",
    "test-unseen-0003": "ca65707dd1d7a48a29b9a5a506d3393faf2665546d60cc0dca71f49cc9a1525f",
    "test-vanishing-0000": "0948060ee934b9ed2f29a41e38e70d0822224f51789e20644180f33e84df4f0b",
    "test-vanishing-0003": "2ffe8bd6fcb543882627302198e80d6e41e8b200e8d3034d1d5cd0be4aabe3a4",
    "test-words-0000": "59790633dd53d96bae29af4e3821417439c493a4ff15f1b1f311a3f45ba699bf",
    "test-words-0003": "ec39e5d72dd69d88ae08f3837e2df0a54f78e20ba3b2ad4d724a506f80a2369b",
    "test-small-0000": "49b979290ae32008cd9d0b798a44f601f0b2b420631432aae089bc608de4baee",
    "test-small-0003": "c95d1fd6220d5db8153641d95137adc8516dd8031874757ad3db4164037e915a",
}
"""Results of :func:`fingerprint` for some clips when the set was frozen (x86-64 with AVX2, OpenCV 5.0)."""


def fingerprint(sample: Sample) -> str:
    """Return the SHA-256 of a clip's pixels and boxes."""
    digest = hashlib.sha256(np.ascontiguousarray(sample.clip.images).tobytes())
    digest.update(sample.clip.boxes.astype("<f4").tobytes())
    return digest.hexdigest()


def is_as_frozen(part: FrozenPart) -> bool:
    """Return whether this machine draws the first clip of a part exactly as it was frozen.

    Boxes are the same everywhere. Pixels may differ by one level with another processor or
    another version of OpenCV.
    """
    return fingerprint(part.draw(0)) == FINGERPRINTS[part.clip_name(0)]
