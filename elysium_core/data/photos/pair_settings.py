"""What pairs of stills are drawn from: shares, sizes and ranges."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from elysium_core.data.photos.photometry import CameraSettings
from elysium_core.errors import ConfigError

_LEAST_SIDE_PX, _MOST_SIDE_PX = 16, 512


@dataclass(frozen=True, slots=True)
class PairSettings:
    """Shares are 0..1. Lengths are in sides of the object (the root of its area) unless a unit is given.

    Attributes:
        anchor_px: Side of an anchor crop [px].
        live_px: Side of a live crop [px].
        live_times: Length of a live crop over that of an anchor crop.
        cutout_share: Share of scenes in which cut-outs move over a photo.
        true_box_share: Share of scenes around an annotated object of a photo; the rest shows any region of a photo.
        absent_share: Share of pairs whose live crop does not show the object.
        look_alike_share: Of these, share that shows another thing of the same class, or the same in another colour.
        gone_share: Of these, share in which the object has left the scene. What remains shows another scene.
        sprite_share: Of the cut-outs, share of sprites.
        distractors: Fewest and most other cut-outs in a scene of cut-outs.
        distractor_share: Share of scenes of photos that get one distractor.
        distractor_like_share: Share of the distractors that are look-alikes of the object.
        twin_share: Share of the look-alike distractors that are equal to the object; then it is the nearer one.
        occluder_share: Share of live crops with something in front of the object.
        least_visible: Of the object, this share has to be inside the crop and not covered.
        same_background_share: Share of cut-out scenes whose background is the same photo, moved.
        object_px: Smallest and largest object of a cut-out scene, in a frame of 320 px.
        region_px: Smallest and largest region of a photo [px of the photo].
        motion: Standard deviation of the way of an object between the two pictures.
        scale: Standard deviation of the logarithm of its scale.
        stretch: Standard deviation of the logarithm of the scale in one direction more.
        turn: Standard deviation of its rotation [degrees].
        tilt: Standard deviation of the perspective: change of scale over the object's length.
        bend_share: Share of objects that are bent.
        bend: Largest strength of the bend, see :func:`draw_thin_plate`.
        photo_bend: The same for the second view of a photo, over a whole crop.
        box_noise: Standard deviation of each edge of the box that is given in the anchor.
        loose_share: Share of given boxes that are too large.
        loose: Of these, how far an edge lies outside at most.
        off_center: Standard deviation of the place of the live crop against the object, in lengths of an anchor crop.
        far_share: Share of live crops that lie anywhere within ``far``.
        far: Largest distance of these along each axis, in lengths of an anchor crop.
        crop_scale: Standard deviation of the logarithm of a live crop's length.
        wide_share: Share of live crops that are longer, as those of a tracker that is not sure.
        wide: Largest factor of these.
        beyond_share: Share of scenes of photos in which the frame goes on where the photo ends, with another photo;
            in the others the frame ends there, too, and the crop shows one colour outside.
        camera: Light, colour, blur and noise.

    Raises:
        ConfigError: A value is out of range.
    """

    anchor_px: int = 64
    live_px: int = 128
    live_times: float = 2.0
    cutout_share: float = 0.5
    true_box_share: float = 0.3
    absent_share: float = 0.15
    look_alike_share: float = 0.45
    gone_share: float = 0.3
    sprite_share: float = 0.2
    distractors: tuple[int, int] = (0, 3)
    distractor_share: float = 0.25
    distractor_like_share: float = 0.5
    twin_share: float = 0.1
    occluder_share: float = 0.25
    least_visible: float = 0.4
    same_background_share: float = 0.75
    object_px: tuple[float, float] = (16.0, 80.0)
    region_px: tuple[float, float] = (24.0, 100.0)
    motion: float = 0.35
    scale: float = 0.15
    stretch: float = 0.08
    turn: float = 8.0
    tilt: float = 0.04
    bend_share: float = 0.5
    bend: float = 0.06
    photo_bend: float = 0.02
    box_noise: float = 0.02
    loose_share: float = 0.12
    loose: float = 0.2
    off_center: float = 0.14
    far_share: float = 0.35
    far: float = 0.62
    crop_scale: float = 0.16
    wide_share: float = 0.15
    wide: float = 2.2
    beyond_share: float = 0.65
    camera: CameraSettings = field(default_factory=CameraSettings)

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name.endswith("_share") and not 0 <= value <= 1:
                raise ConfigError(f"{item.name} = {value:g} is not in 0..1")
            if isinstance(value, tuple) and not 0 <= value[0] <= value[1]:
                raise ConfigError(f"{item.name} = {value[0]:g}, {value[1]:g} needs 0 <= least <= most")
        for name in ("anchor_px", "live_px"):
            if not _LEAST_SIDE_PX <= getattr(self, name) <= _MOST_SIDE_PX:
                raise ConfigError(f"{name} = {getattr(self, name)} is not in {_LEAST_SIDE_PX}..{_MOST_SIDE_PX} px")
        for first, second in (("cutout_share", "true_box_share"), ("look_alike_share", "gone_share")):
            total = getattr(self, first) + getattr(self, second)
            if total > 1 + 1e-9:
                raise ConfigError(f"{first} and {second} are {total:g} together, more than 1")
        self._check_lengths()

    def _check_lengths(self) -> None:
        for name in (
            "motion",
            "scale",
            "stretch",
            "turn",
            "tilt",
            "box_noise",
            "loose",
            "off_center",
            "far",
            "crop_scale",
        ):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} = {getattr(self, name):g} is not 0 or more")
        for name in ("bend", "photo_bend"):
            if not 0 <= getattr(self, name) <= 0.1:
                raise ConfigError(f"{name} = {getattr(self, name):g} is not in 0..0.1; stronger bends fold a picture")
        if not 0 < self.least_visible <= 1:
            raise ConfigError(f"least_visible = {self.least_visible:g} is not in 0..1, 0 excluded")
        if self.live_times < 1 or self.wide < 1:
            raise ConfigError(f"live_times = {self.live_times:g} and wide = {self.wide:g} need to be 1 or more")
