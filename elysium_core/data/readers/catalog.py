"""Tracking benchmarks by name: reader, default split and number of entries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from elysium_core.data.readers.annotation_files import Skip
from elysium_core.data.readers.davis import read_davis
from elysium_core.data.readers.elysiumtrack import read_elysiumtrack
from elysium_core.data.readers.folder import read_folder
from elysium_core.data.readers.labelled_recording import LabelledRecording
from elysium_core.data.readers.lasot import read_lasot
from elysium_core.data.readers.picture_folders import read_got10k, read_otb, read_trackingnet, read_uav123
from elysium_core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class TrackingBenchmark:
    """A tracking benchmark.

    Attributes:
        name: Name on the command line.
        title: Name in reports.
        read: Yields the recordings of a split, given the data set's folder, the split, and what is told about
            recordings that are left out (None = a damaged one ends the reading).
        default_split: Split if none is given; empty if there are no splits.
        sizes: Number of entries of each complete split, where it is fixed.
    """

    name: str
    title: str
    read: Callable[[Path, str, Skip | None], Iterator[LabelledRecording]]
    default_split: str = ""
    sizes: dict[str, int] | None = None


TRACKING_BENCHMARKS: dict[str, TrackingBenchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        TrackingBenchmark("folder", "own recordings", read_folder),
        TrackingBenchmark("otb100", "OTB100", read_otb, sizes={"": 100}),
        TrackingBenchmark("uav123", "UAV123", read_uav123, sizes={"": 123}),
        TrackingBenchmark("lasot", "LaSOT", read_lasot, "test", {"test": 280, "train": 1120, "all": 1400}),
        TrackingBenchmark("got10k", "GOT-10k", read_got10k, "val", {"val": 180, "test": 180}),
        TrackingBenchmark("trackingnet", "TrackingNet", read_trackingnet, "TEST", {"TEST": 511}),
        TrackingBenchmark("elysiumtrack", "ElysiumTrack", read_elysiumtrack, "val500", {"val500": 500}),
        TrackingBenchmark("davis", "DAVIS", read_davis, "val"),
    )
}
"""Every tracking benchmark by name."""


def get_tracking_benchmark(name: str) -> TrackingBenchmark:
    """Look a tracking benchmark up by name.

    Raises:
        ConfigError: There is no such benchmark.
    """
    if name not in TRACKING_BENCHMARKS:
        raise ConfigError(f"benchmark {name!r} is not one of {', '.join(TRACKING_BENCHMARKS)}")
    return TRACKING_BENCHMARKS[name]
