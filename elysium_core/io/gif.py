"""Animated GIFs of bounded size, made by FFmpeg's palette filters (PyAV)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
from av.filter.context import FilterContext
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from elysium_core.frames import Frame
from elysium_core.io.image import resized

MAX_BYTES = 4_000_000
"""Size that a GIF is shrunk to [bytes]."""

# The time unit of the format is a hundredth of a second.
_TIME_BASE = Fraction(1, 100)
# Browsers slow down frames shorter than 2/100 s; a long recording becomes a time lapse, not a slide show.
_SHORTEST, _LONGEST, _LAST = 2, 20, 10
# Labels on a narrower picture are hard to read: frames are dropped before the picture gets narrower than this [px].
_READABLE_WIDTH = 380
_MIN_WIDTH = 160
# A pixel that changes by less than this keeps its value: sensor noise would otherwise be half of the file.
_NOISE_LEVEL = 10
# With 255 colours the file is 15 % larger, and on video frames nobody sees the difference.
_PALETTE = "max_colors=128"
# Dithering is noise, which GIF compresses badly.
_DITHER = "dither=none:diff_mode=rectangle"


def write_gif(path: Path, frames: Sequence[Frame], end_ns: int, max_bytes: int = MAX_BYTES) -> None:
    """Write frames as an animated GIF that plays for ever.

    A file that is too large is written again: first narrower, then with every second
    frame, then both. It may stay too large if two narrow frames are too large.

    Args:
        path: The file to write.
        frames: At least one, in order of time.
        end_ns: Time at which the last frame ends [ns].
        max_bytes: Largest file [bytes].

    Raises:
        OSError: The file cannot be written.
    """
    for kept in (frames, frames[::2]):
        if _fits(path, kept, end_ns, max_bytes, _READABLE_WIDTH):
            return
    kept = frames[::2]
    while not _fits(path, kept, end_ns, max_bytes, _MIN_WIDTH) and len(kept) > 2:
        kept = kept[::2]


def _fits(path: Path, frames: Sequence[Frame], end_ns: int, max_bytes: int, narrowest: int) -> bool:
    """Write the GIF as wide as ``max_bytes`` allows, at least ``narrowest`` px; return whether it is small enough."""
    width = frames[0].width
    while (size := _save(path, frames, end_ns, width)) > max_bytes:
        if width <= narrowest:
            return False
        width = max(narrowest, int(width * max(0.6, 0.95 * math.sqrt(max_bytes / size))))
    return True


def _save(path: Path, frames: Sequence[Frame], end_ns: int, width: int) -> int:
    """Write one GIF of the given width and return its size [bytes]."""
    height = max(1, round(frames[0].height * width / frames[0].width))
    images = _without_noise([resized(frame.image, width, height) for frame in frames])
    times = _times([frame.stamp_ns for frame in frames], end_ns)
    options = {"loop": "0", "final_delay": str(times[-1] - times[-2])}
    with av.open(f"file:{path}", "w", format="gif", options=options) as container:
        stream = container.add_stream("gif", rate=1 / _TIME_BASE)
        stream.width, stream.height, stream.pix_fmt = width, height, "pal8"
        stream.codec_context.time_base = _TIME_BASE
        for picture in _with_common_palette(images, times):
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path.stat().st_size


def _times(stamps_ns: Sequence[int], end_ns: int) -> list[int]:
    """Start of each frame, and the end of the last one [1/100 s]."""
    # Moments are rounded, not durations, so that rounding errors do not add up.
    moments = [round(stamp / 1e7) for stamp in (*stamps_ns, max(end_ns, stamps_ns[-1]))]
    shown = [later - earlier for earlier, later in pairwise(moments)]
    shown[-1] = shown[-1] or _LAST
    times = [0]
    for duration in shown:
        times.append(times[-1] + min(_LONGEST, max(_SHORTEST, duration)))
    return times


def _with_common_palette(images: Sequence[NDArray[np.uint8]], times: Sequence[int]) -> Iterator[VideoFrame]:
    """Reduce frames to one palette of all of them: with a palette for each frame, colours would flicker."""
    graph = av.filter.Graph()
    height, width = images[0].shape[:2]
    source = graph.add_buffer(width=width, height=height, format=av.VideoFormat("rgb24"), time_base=_TIME_BASE)
    split, sink = graph.add("split"), graph.add("buffersink")
    palette, reduced = graph.add("palettegen", _PALETTE), graph.add("paletteuse", _DITHER)
    source.link_to(split)
    split.link_to(palette, 0, 0)
    split.link_to(reduced, 1, 0)
    palette.link_to(reduced, 0, 1)
    reduced.link_to(sink)
    graph.configure()
    for image, time in zip(images, times, strict=False):
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts, frame.time_base = time, _TIME_BASE
        source.push(frame)
    source.push(None)
    yield from _output_of(sink)


def _output_of(sink: FilterContext) -> Iterator[VideoFrame]:
    while True:
        try:
            frame = sink.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        if isinstance(frame, VideoFrame):
            yield frame


def _without_noise(images: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    calm = [images[0]]
    for image in images[1:]:
        changed = cv2.absdiff(image, calm[-1]).max(axis=2, keepdims=True) > _NOISE_LEVEL
        calm.append(np.where(changed, image, calm[-1]))
    return calm
