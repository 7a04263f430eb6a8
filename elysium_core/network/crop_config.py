"""Settings of the selector that follows an object in crops."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

CROP_STRIDE_PX = 8
"""Side of the cell that a token of a crop stands for [px]."""
_SIDE_STEP_PX = 16
_LARGEST_SIDE_PX = 512
_LARGEST_WIDTH = 4096


@dataclass(frozen=True, slots=True)
class CropConfig:
    """``crop_config`` of a model: :class:`elysium_core.network.target_selector.TargetSelector`.

    Attributes:
        live_px: Side of a live crop [px], a multiple of 16.
        anchor_px: Side of an anchor crop [px], a multiple of 16.
        live_tokens: Tokens kept of a live crop.
        anchor_tokens: Tokens kept of an anchor crop.
        neck: Channels that features are reduced to.
        match: Width of the vectors that are compared.
        trunk: Channels of the convolutions behind the comparison.
        num_features: Width of a token, that of the projector's input.

    Raises:
        ValueError: A value is out of range.
    """

    live_px: int = 128
    anchor_px: int = 64
    live_tokens: int = 32
    anchor_tokens: int = 16
    neck: int = 96
    match: int = 64
    trunk: int = 80
    num_features: int = 128

    def __post_init__(self) -> None:
        for name in ("live_px", "anchor_px"):
            side = getattr(self, name)
            if side % _SIDE_STEP_PX or not _SIDE_STEP_PX <= side <= _LARGEST_SIDE_PX:
                raise ValueError(f"{name} = {side} is not a multiple of {_SIDE_STEP_PX} in 16..{_LARGEST_SIDE_PX} px")
        for name, cells in (("live_tokens", self.live_cells**2), ("anchor_tokens", self.anchor_cells**2)):
            if not 1 <= getattr(self, name) <= cells:
                raise ValueError(f"{name} = {getattr(self, name)} is not in 1..{cells}, the cells of such a crop")
        for name in ("neck", "match", "trunk", "num_features"):
            if not 1 <= getattr(self, name) <= _LARGEST_WIDTH:
                raise ValueError(f"{name} = {getattr(self, name)} is not in 1..{_LARGEST_WIDTH}")

    @property
    def live_cells(self) -> int:
        """Cells a side of a live crop."""
        return self.live_px // CROP_STRIDE_PX

    @property
    def anchor_cells(self) -> int:
        """Cells a side of an anchor crop."""
        return self.anchor_px // CROP_STRIDE_PX

    @classmethod
    def from_dict(cls, raw: Any) -> CropConfig:
        """Read ``crop_config``; keys that are left out have their default values.

        Raises:
            ValueError: It is not an object, a key is unknown, or a value is not a whole number in its range.
        """
        if not isinstance(raw, dict):
            raise ValueError(f"it is {type(raw).__name__}, not an object of settings")
        known = [field.name for field in fields(cls)]
        for key, value in raw.items():
            if key not in known:
                raise ValueError(f"{key!r} is not one of {', '.join(known)}")
            if not isinstance(value, int) or isinstance(value, bool):
                raise ValueError(f"{key} = {value!r} is not a whole number")
        return cls(**raw)

    def to_dict(self) -> dict[str, int]:
        """Content of ``crop_config``."""
        return asdict(self)
