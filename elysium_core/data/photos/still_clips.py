"""Short clips with known truth, made of photos: an object moves over a panning photo, is covered, leaves, comes back.

They look more real than clips of sprites and need no video: for tests, for calibration, and for the demo.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from elysium_core.data.photos.clip_motion import ClipEvent, Track, crossing, draw_track, leaving, vanishing
from elysium_core.data.photos.cutouts import Cutout, CutoutLibrary
from elysium_core.data.photos.photo_set import PhotoSet
from elysium_core.data.photos.photometry import Camera, CameraSettings, draw_camera
from elysium_core.data.photos.scene_parts import draw_look_alike
from elysium_core.data.photos.shot import Rendering, Shot, render
from elysium_core.data.photos.warps import Matrix, draw_thin_plate, scaling, translation
from elysium_core.errors import ConfigError, DataError

_MOST_TRIES = 50
_LEAST_SIDE_PX, _MOST_SIDE_PX = 64, 1920
# An object counts as seen from this visible share on, and as gone below that.
SEEN, UNSEEN = 0.3, 0.05
# In an event the object is unseen for so many frames at least.
_LEAST_UNSEEN = 3
_FLICKER = 0.015
_PAN_ZOOM = (1.15, 1.5)


def _steady_camera() -> CameraSettings:
    """A camera that shows what there is: clips are measured on, not only trained on."""
    return CameraSettings(
        exposure_share=0.0,
        flat_share=0.0,
        saturation_share=0.0,
        coarse=(0.5, 0.9),
        blur=0.8,
        motion_share=0.15,
        motion_px=(2, 4),
        noise=5.0,
        jpeg_share=1.0,
    )


@dataclass(frozen=True, slots=True)
class StillClipSettings:
    """Ranges that clips are drawn from.

    Attributes:
        frames: Frames a clip.
        width: Width of the frames [px].
        height: Height of the frames [px].
        size: Smallest and largest object, as a share of the frame's shorter side.
        speed: Standard deviation of the velocity along each axis [sides of the object a frame].
        pan: Fastest pan of the camera [widths of the frame a frame].
        distractors: Fewest and most other things.
        like_share: Share of these that look like the object, 0..1.
        sprite_share: Share of sprites among all things, 0..1.
        bend: Strongest bend of a thing while it moves.
        events: What may happen, each as often.
        camera: Light, colour, blur and noise.

    Raises:
        ConfigError: A value is out of range.
    """

    frames: int = 60
    width: int = 320
    height: int = 240
    size: tuple[float, float] = (0.15, 0.35)
    speed: float = 0.04
    pan: float = 0.004
    distractors: tuple[int, int] = (0, 2)
    like_share: float = 0.5
    sprite_share: float = 0.2
    bend: float = 0.04
    events: tuple[ClipEvent, ...] = tuple(ClipEvent)
    camera: CameraSettings = field(default_factory=_steady_camera)

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            if not _LEAST_SIDE_PX <= getattr(self, name) <= _MOST_SIDE_PX:
                raise ConfigError(f"{name} = {getattr(self, name)} is not in {_LEAST_SIDE_PX}..{_MOST_SIDE_PX} px")
        if self.frames < 1 or not self.events:
            raise ConfigError(f"frames = {self.frames} and {len(self.events)} events: at least one of each is needed")
        if self.frames < 30 and set(self.events) != {ClipEvent.NONE}:
            raise ConfigError(f"frames = {self.frames} is too short for an event; take 30 or more, or no event")
        if not 0 < self.size[0] <= self.size[1] <= 0.8:
            raise ConfigError(f"size = {self.size[0]:g}, {self.size[1]:g} needs 0 < least <= most <= 0.8")
        if not 0 <= self.distractors[0] <= self.distractors[1]:
            raise ConfigError(f"distractors = {self.distractors} needs 0 <= fewest <= most")
        for name in ("like_share", "sprite_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} = {getattr(self, name):g} is not in 0..1")


@dataclass(frozen=True, slots=True, eq=False)
class StillClip:
    """A clip and its truth. T frames of H x W px.

    Attributes:
        images: (T, H, W, 3) uint8 RGB.
        boxes: (T, 4) float32, the object's whole box, also where it is covered, cut to the frame, x1 y1 x2 y2 in
            0..1; zeros where it is gone or outside.
        visible: (T,) float32, visible share of the object, 0..1.
        name: What the object is.
        event: What happens to it.
    """

    images: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    visible: NDArray[np.float32]
    name: str
    event: ClipEvent

    @property
    def is_seen(self) -> NDArray[np.bool_]:
        """(T,) whether enough of the object is visible to know where it is."""
        return np.asarray(self.visible >= SEEN)

    @property
    def is_gone(self) -> NDArray[np.bool_]:
        """(T,) whether hardly anything of the object is visible. Frames that are neither are not scored."""
        return np.asarray(self.visible < UNSEEN)


class StillClips:
    """Draws clips.

    Args:
        photos: Backgrounds.
        cutouts: Things that move; by default the sprites of the package alone.
        settings: Sizes and ranges.
    """

    def __init__(
        self, photos: PhotoSet, cutouts: CutoutLibrary | None = None, settings: StillClipSettings | None = None
    ) -> None:
        self._photos, self._library = photos, cutouts or CutoutLibrary()
        self.settings = settings or StillClipSettings()

    def draw(self, seed: int, index: int) -> StillClip:
        """Draw clip ``index``; it is the same every time and in any order.

        Args:
            seed: Seed of all clips, >= 0.
            index: Number of the clip, >= 0.

        Raises:
            DataError: No clip in which the event can be seen is found.
        """
        rng = np.random.default_rng([seed, index])
        event = self.settings.events[int(rng.integers(len(self.settings.events)))]
        for _ in range(_MOST_TRIES):
            clip = self._attempt(rng, event)
            if clip is not None:
                return clip
        raise DataError(f"no clip with the event {event.value!r} was found in {_MOST_TRIES} tries; make clips longer")

    def _attempt(self, rng: np.random.Generator, event: ClipEvent) -> StillClip | None:
        settings = self.settings
        target = self._library.draw(rng, settings.sprite_share)
        tracks, own = self._tracks(rng, target, event)
        _, photo = self._photos.draw(rng)
        pans = self._pan(rng, photo.shape[1], photo.shape[0])
        shots = [self._shot(photo, pan, tracks, own, frame) for frame, pan in enumerate(pans)]
        drawn = [render(shot, np.eye(3), settings.width, settings.height) for shot in shots]
        visible = np.array([rendering.visible for rendering in drawn], np.float32)
        if not _fits(event, visible):
            return None
        sides = np.array([settings.width, settings.height] * 2, np.float64)
        boxes = np.stack([np.zeros(4) if found.box is None else found.box / sides for found in drawn])
        images = self._taken(rng, drawn)
        return StillClip(images, boxes.astype(np.float32), visible, target.name, event)

    def _tracks(self, rng: np.random.Generator, target: Cutout, event: ClipEvent) -> tuple[list[Track], int]:
        """Motions of all things, the most distant one first, and which is the object's."""
        settings = self.settings
        sides = (settings.width, settings.height)
        size = float(np.exp(rng.uniform(*np.log(settings.size)))) * min(sides)
        tracks = []
        for _ in range(int(rng.integers(settings.distractors[0], settings.distractors[1] + 1))):
            if rng.random() < settings.like_share:
                other, _kind = draw_look_alike(rng, self._library, target)
            else:
                other = self._library.draw(rng, settings.sprite_share)
            own_size = size * float(np.exp(rng.normal(0, 0.25)))
            tracks.append(draw_track(rng, other, settings.frames, sides, own_size, settings.speed))
        bend = draw_thin_plate(rng, settings.bend) if settings.bend else None
        track = draw_track(rng, target, settings.frames, sides, size, settings.speed, bend)
        if event is ClipEvent.LEAVES:
            track = leaving(rng, track, sides)
        elif event is ClipEvent.GONE:
            track = vanishing(rng, track)
        tracks.append(track)
        if event is ClipEvent.COVERED:
            tracks.append(crossing(rng, track, self._library.draw(rng, settings.sprite_share)))
            return tracks, len(tracks) - 2
        return tracks, len(tracks) - 1

    def _pan(self, rng: np.random.Generator, width: int, height: int) -> list[Matrix]:
        """Photo [px] to frame [px] in every frame: the camera swings over the photo and never leaves it."""
        settings = self.settings
        scale = max(settings.width / width, settings.height / height) * rng.uniform(*_PAN_ZOOM)
        slack = np.array([width * scale - settings.width, height * scale - settings.height])
        middle = slack * rng.uniform(0.3, 0.7, 2)
        swing = np.minimum(middle, slack - middle)
        rate = np.minimum(rng.uniform(0, settings.pan, 2) * settings.width / np.maximum(swing, 1), 0.5)
        phase = rng.uniform(0, 2 * np.pi, 2)
        places = middle + swing * np.sin(rate * np.arange(settings.frames)[:, None] + phase)
        return [translation(-x, -y) @ scaling(scale, scale) for x, y in places]

    def _shot(self, photo: NDArray[np.uint8], pan: Matrix, tracks: list[Track], own: int, frame: int) -> Shot:
        shown = [n for n, track in enumerate(tracks) if track.shown[frame]]
        placed = tuple(tracks[n].at(frame) for n in shown)
        target = shown.index(own) if own in shown else None
        return Shot(photo, pan, self.settings.width, self.settings.height, placed, target)

    def _taken(self, rng: np.random.Generator, drawn: list[Rendering]) -> NDArray[np.uint8]:
        """The frames as one camera takes them, with its flicker and noise."""
        camera = draw_camera(rng, self.settings.camera, min(self.settings.width, self.settings.height))
        return np.stack([_flickering(camera, rng).apply(rendering.pixels, rng) for rendering in drawn])


def _flickering(camera: Camera, rng: np.random.Generator) -> Camera:
    return replace(camera, gain=camera.gain * np.float32(np.exp(rng.normal(0, _FLICKER))))


def _fits(event: ClipEvent, visible: NDArray[np.float32]) -> bool:
    """Whether a clip shows its event: the object is clear at first, then away, then back unless it is gone."""
    away = visible < UNSEEN
    if visible[0] < 2 * SEEN:
        return False
    if event is ClipEvent.NONE:
        return bool((visible >= SEEN).all())
    is_back = bool(visible[-1] >= SEEN) or event is ClipEvent.GONE
    return int(away.sum()) >= _LEAST_UNSEEN and is_back
