"""Cameras: light, colour, blur, noise and compression of a picture."""

from __future__ import annotations

from dataclasses import dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray

from elysium_core.errors import ConfigError

_USUAL_SIDE_PX = 128
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True, slots=True)
class CameraSettings:
    """Ranges that cameras are drawn from. Shares are 0..1, gray levels 0..255.

    Attributes:
        gain: Standard deviation of the logarithm of the usual exposure.
        offset: Standard deviation of the black level [gray levels].
        tint: Standard deviation of the logarithm of each colour's gain.
        exposure_share: Share of pictures with an exposure from the whole range.
        exposure: That range, factors.
        flat_share: Share with hardly any contrast.
        flat: Range of what remains of the contrast, a factor.
        saturation_share: Share with less colour.
        saturation: Range of what remains of it, a factor; 0 is a gray picture.
        gamma_share: Share with another gamma.
        gamma: Standard deviation of its logarithm.
        ramp_share: Share with light from one side.
        ramp: Standard deviation of the logarithm of the light from the middle to an edge.
        coarse_share: Share that was enlarged from a smaller picture.
        coarse: Range of that picture's side over this one's.
        blur_share: Share that is out of focus.
        blur: Largest standard deviation of the blur [px of a picture of 128 px].
        motion_share: Share that is blurred by motion.
        motion_px: Shortest and longest way [px of a picture of 128 px].
        noise: Largest standard deviation of the noise [gray levels].
        jpeg_share: Share that was compressed.
        jpeg: Range of the quality.

    Raises:
        ConfigError: A share or range is wrong.
    """

    gain: float = 0.18
    offset: float = 10.0
    tint: float = 0.06
    exposure_share: float = 0.25
    exposure: tuple[float, float] = (0.3, 2.0)
    flat_share: float = 0.05
    flat: tuple[float, float] = (0.08, 0.5)
    saturation_share: float = 0.25
    saturation: tuple[float, float] = (0.0, 1.0)
    gamma_share: float = 0.15
    gamma: float = 0.35
    ramp_share: float = 0.2
    ramp: float = 0.25
    coarse_share: float = 0.25
    coarse: tuple[float, float] = (0.35, 0.9)
    blur_share: float = 0.15
    blur: float = 1.5
    motion_share: float = 0.25
    motion_px: tuple[int, int] = (2, 9)
    noise: float = 7.0
    jpeg_share: float = 0.3
    jpeg: tuple[int, int] = (20, 90)

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name.endswith("_share"):
                if not 0 <= value <= 1:
                    raise ConfigError(f"{item.name} = {value:g} of the camera is not in 0..1")
            elif isinstance(value, tuple):
                if not 0 <= value[0] <= value[1]:
                    raise ConfigError(
                        f"{item.name} = {value[0]:g}, {value[1]:g} of the camera needs 0 <= least <= most"
                    )
            elif value < 0:
                raise ConfigError(f"{item.name} = {value:g} of the camera is negative")


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """One camera in one light.

    Attributes:
        gain: (3,) factor of each colour.
        offset: Added to every level.
        saturation: What remains of the colour, 0..1.
        gamma: Exponent.
        ramp: Logarithm of the light from the middle to the right and to the lower edge.
        coarse: Side of the picture that this one was enlarged from, over this one's; 1 = not enlarged.
        blur: Standard deviation of the blur [px]; 0 = none.
        motion: Length [px] and direction [degrees] of the motion blur; length 0 = none.
        noise: Standard deviation of the noise [gray levels].
        jpeg: Quality of the compression; 0 = none.
    """

    gain: NDArray[np.float32]
    offset: float
    saturation: float
    gamma: float
    ramp: tuple[float, float]
    coarse: float
    blur: float
    motion: tuple[int, float]
    noise: float
    jpeg: int

    def apply(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Take a picture.

        Args:
            image: RGB uint8 (H, W, 3).
            rng: Source of the noise.

        Returns:
            RGB uint8 (H, W, 3), a new array.
        """
        light = self._colors(image)
        if self.ramp != (0.0, 0.0):
            light *= self._ramp(*image.shape[:2])
        if self.gamma != 1:
            light = np.asarray(255 * (np.clip(light, 0, 255) / 255) ** self.gamma, np.float32)
        light = self._optics(light)
        if self.noise:
            light = light + rng.standard_normal(light.shape, np.float32) * np.float32(self.noise)
        picture = np.clip(light, 0, 255).astype(np.uint8)
        return _compressed(picture, self.jpeg) if self.jpeg else picture

    def _colors(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Saturation, gain and black level in one pass."""
        mixed = self.saturation * np.eye(3) + (1 - self.saturation) * _LUMA[None, :]
        matrix = np.column_stack([self.gain[:, None] * mixed, np.full(3, self.offset)])
        return np.asarray(cv2.transform(image.astype(np.float32), matrix.astype(np.float32)), np.float32)

    def _ramp(self, height: int, width: int) -> NDArray[np.float32]:
        across = np.exp(self.ramp[0] * np.linspace(-1, 1, width, dtype=np.float32))
        down = np.exp(self.ramp[1] * np.linspace(-1, 1, height, dtype=np.float32))
        return np.asarray((down[:, None] * across[None])[..., None], np.float32)

    def _optics(self, light: NDArray[np.float32]) -> NDArray[np.float32]:
        """Motion, focus, and a sensor with fewer pixels."""
        height, width = light.shape[:2]
        result: NDArray[np.float32] = light
        if self.motion[0] > 1:
            result = np.asarray(cv2.filter2D(result, -1, _motion_kernel(*self.motion)), np.float32)
        if self.blur > 0:
            result = np.asarray(cv2.GaussianBlur(result, (0, 0), self.blur), np.float32)
        if self.coarse < 1:
            size = max(2, round(width * self.coarse)), max(2, round(height * self.coarse))
            small = cv2.resize(result, size, interpolation=cv2.INTER_AREA)
            result = np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
        return result


def draw_camera(
    rng: np.random.Generator, settings: CameraSettings, side_px: int, *, keep_color: bool = False
) -> Camera:
    """Draw a camera and its light.

    Args:
        rng: Source of randomness.
        settings: Ranges.
        side_px: Side of its pictures: a blur is shorter in small ones.
        keep_color: Colour tells the object from another one, so it stays to be seen.
    """
    gain, offset = float(np.exp(rng.normal(0, settings.gain))), rng.normal(0, settings.offset)
    if rng.random() < settings.exposure_share:
        low, high = np.log(settings.exposure)
        gain = float(np.exp(rng.uniform(low, high)))
    if not keep_color and rng.random() < settings.flat_share:
        gain *= rng.uniform(*settings.flat)
        offset += rng.uniform(0, 120) * (rng.random() < 0.4)
    gray = not keep_color and rng.random() < settings.saturation_share
    ramp = rng.normal(0, settings.ramp, 2) if rng.random() < settings.ramp_share else np.zeros(2)
    scale = side_px / _USUAL_SIDE_PX
    way = rng.integers(settings.motion_px[0], settings.motion_px[1] + 1) * (rng.random() < settings.motion_share)
    return Camera(
        gain=(gain * np.exp(rng.normal(0, settings.tint, 3))).astype(np.float32),
        offset=float(offset),
        saturation=float(rng.uniform(*settings.saturation)) if gray else 1.0,
        gamma=float(np.exp(rng.normal(0, settings.gamma))) if rng.random() < settings.gamma_share else 1.0,
        ramp=(float(ramp[0]), float(ramp[1])),
        coarse=float(rng.uniform(*settings.coarse)) if rng.random() < settings.coarse_share else 1.0,
        blur=float(rng.uniform(0.2, 1) * settings.blur * scale) if rng.random() < settings.blur_share else 0.0,
        motion=(round(float(way) * scale), float(rng.uniform(0, 180))),
        noise=float(rng.random() * settings.noise),
        jpeg=int(rng.integers(settings.jpeg[0], settings.jpeg[1] + 1)) if rng.random() < settings.jpeg_share else 0,
    )


def _motion_kernel(length: int, degrees: float) -> NDArray[np.float32]:
    side = length | 1
    line = np.zeros((side, side), np.float32)
    line[side // 2] = 1
    turn = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), degrees, length / side)
    kernel = np.asarray(cv2.warpAffine(line, turn, (side, side)), np.float32)
    return kernel / max(float(kernel.sum()), 1e-6)


def _compressed(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    decoded = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB), np.uint8)
