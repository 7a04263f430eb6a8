"""Choice of the tracker: by the mode, and by how the model follows objects: in whole frames, in crops, or by words."""

from __future__ import annotations

from elysium_core.errors import ConfigError
from elysium_core.runtime import Runtime
from elysium_core.settings import TrackingConfig
from elysium_core.tracking.clip import ClipTracker
from elysium_core.tracking.crop_tracker import CropTracker
from elysium_core.tracking.live_clip import LiveClipTracker
from elysium_core.tracking.stream import StreamTracker
from elysium_core.tracking.word_tracker import WordTracker
from elysium_core.types import Tracker


def make_tracker(runtime: Runtime, config: TrackingConfig, model_name: str) -> Tracker:
    """Make a tracker for one stream.

    Args:
        runtime: The model.
        config: Settings of the tracker.
        model_name: For error messages.

    Raises:
        ConfigError: The model does not know the mode (``MODE``).
    """
    if config.mode == "stream":
        return _live_tracker(runtime, config)
    if runtime.family.settings.by_words:
        raise ConfigError(
            f"mode {config.mode!r} is not for {model_name!r}, which is asked about one frame at a time; use mode "
            "'stream'",
            code="MODE",
        )
    if config.mode == "clip":
        return ClipTracker(runtime, config)
    if runtime.family.crop_sizes is not None:
        raise ConfigError(
            f"mode 'paper' is not for {model_name!r}, which follows in crops; use mode 'stream'", code="MODE"
        )
    return LiveClipTracker(runtime, config)


def _live_tracker(runtime: Runtime, config: TrackingConfig) -> Tracker:
    if runtime.family.settings.by_words and config.window == "auto":
        return WordTracker(runtime, config)
    if runtime.family.crop_sizes is not None:
        return CropTracker(runtime, config)
    return StreamTracker(runtime, config)
