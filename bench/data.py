"""``python -m bench.data``: speed of the clip generator on one core."""

from __future__ import annotations

import time
from typing import Annotated, Any

import cv2
import typer

from elysium_core.cli.options import JsonOption
from elysium_core.cli.output import emit, say
from elysium_core.data.synthetic.assets import trainable_names
from elysium_core.data.synthetic.clips import ClipGenerator
from elysium_core.data.synthetic.scene import MAX_SIDE_PX, MIN_SIDE_PX, SceneConfig
from elysium_core.data.synthetic.writer import encode_png

_CLIP_LENGTHS = (1, 4, 30)
_OBJECTS = (1, 2, 3, 4)
_GAP = (0.5, 2.5)


def command(
    side: Annotated[
        int, typer.Option("--side", min=MIN_SIDE_PX, max=MAX_SIDE_PX, help=r"Side of the frames \[px].")
    ] = 128,
    seconds: Annotated[float, typer.Option("--seconds", min=0.01, max=60.0, help=r"Time for each figure \[s].")] = 3.0,
    json: JsonOption = False,
) -> None:
    """Measure the clip generator with one thread, on the backgrounds of the package.

    Both frames per second of wall time and per second of processor time: on a busy machine
    only the second figure is meaningful.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        generator = ClipGenerator.for_split("test", len(trainable_names()), 0, SceneConfig(side_px=side))
        rates = {f"{length}-frame clips": _measure(generator, length, seconds) for length in _CLIP_LENGTHS}
        rates["4-frame clips, as PNG"] = _measure(generator, 4, seconds, write=True)
    finally:
        cv2.setNumThreads(threads)
    if json:
        emit({"side_px": side, "threads": 1, "frames_per_second": rates})
        return
    say(f"frames of {side} px, {_OBJECTS[0]} to {_OBJECTS[-1]} objects, one thread")
    for name, rate in rates.items():
        say(f"  {name:<24} {rate['wall']:7.0f} frames/s   {rate['core']:7.0f} frames per second of processor time")


def _measure(generator: ClipGenerator, length: int, seconds: float, *, write: bool = False) -> dict[str, Any]:
    """Draw clips for some time.

    Returns:
        Frames a second of ``wall`` time and of processor time (``core``), and the number of ``frames``.
    """
    frames = 0
    wall, core = time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < seconds:
        clip = generator.draw(length, _OBJECTS[frames // length % len(_OBJECTS)], _GAP)
        if write:
            for image in clip.images:
                encode_png(image)
        frames += length
    wall, core = time.perf_counter() - wall, time.process_time() - core
    return {"wall": round(frames / wall, 1), "core": round(frames / max(core, 1e-9), 1), "frames": frames}


if __name__ == "__main__":
    from bench.app import run

    run("data")
