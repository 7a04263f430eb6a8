"""Curation on Ray Data: several workers on this machine, or a cluster.

The videos are streamed through a pool of actors that hold the tools. Only ids, captions and results travel; a worker
reads its videos and writes their frames itself, so that on a cluster all machines need both folders.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from elysium_core.curation.captioned_videos import CaptionedVideo
from elysium_core.curation.curate_video import curate_safely
from elysium_core.curation.curated_frames import ATTEMPT_FOLDER
from elysium_core.curation.curation_run import CurationJob, Work
from elysium_core.curation.video_result import FAILED, VideoResult
from elysium_core.errors import BackendError, ConfigError, pip_line

_LONGEST_REASON, _MOST_ATTEMPTS = 200, 2
_LOST = "its worker ended twice, as when memory runs out or a decoder crashes"


@dataclass(frozen=True, slots=True)
class RayPool:
    """A pool of workers.

    Attributes:
        workers: Number of workers, >= 1.
        gpus: GPUs of each worker; a fraction lets workers share one.
        cpus: CPU cores of each worker.
        address: Address of a running cluster; empty starts Ray on this machine.
        window: Videos handed to Ray at a time for each worker: bounds what waits in memory.
    """

    workers: int = 1
    gpus: float = 0.0
    cpus: float = 1.0
    address: str = ""
    window: int = 250

    def __post_init__(self) -> None:
        if self.workers < 1 or self.window < 1:
            raise ConfigError(f"workers = {self.workers} and window = {self.window} need to be at least 1")
        if self.gpus < 0 or self.cpus <= 0:
            raise ConfigError(f"gpus = {self.gpus:g} and cpus = {self.cpus:g} need gpus >= 0 and cpus > 0")


class CurationActor:
    """A worker of the pool: loads the tools once, then curates one video after another.

    Args:
        job: What to do.
    """

    def __init__(self, job: CurationJob) -> None:
        self._job = job
        self._tools = job.tools.load()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Curate the videos of a batch."""
        videos: list[CaptionedVideo] = [pickle.loads(packed) for packed in batch["video"]]  # noqa: S301 - our own
        packed = np.empty(len(videos), dtype=object)
        packed[:] = [pickle.dumps(self._curated(video)) for video in videos]
        return {"result": packed}

    def _curated(self, video: CaptionedVideo) -> VideoResult | OSError:
        # Ray starts a worker that has died again and hands it the same video, for ever: the attempts are counted here.
        attempts = self._job.out / ATTEMPT_FOLDER / video.vid
        try:
            before = attempts.stat().st_size if attempts.exists() else 0
            if before >= _MOST_ATTEMPTS:
                return VideoResult(video.vid, FAILED, _LOST)
            attempts.parent.mkdir(exist_ok=True)
            attempts.write_bytes(b"x" * (before + 1))
            result = curate_safely(video, self._tools, self._job.rules, self._job.out)
            attempts.unlink(missing_ok=True)
        except OSError as error:
            return error  # Ray would count it as the fault of this video
        return result


def work_on_ray(job: CurationJob, pool: RayPool) -> Work:
    """Return a worker that hands videos to a pool; Ray starts, or is joined, now.

    Raises:
        BackendError: Ray is not installed (``PACKAGE_MISSING``), the cluster cannot be reached, or, while it works,
            no tool can be loaded there (``RAY``).
    """
    ray = _started_ray(pool)

    def work(videos: Iterable[CaptionedVideo]) -> Iterator[VideoResult]:
        waiting = iter(videos)
        while window := list(islice(waiting, pool.window * pool.workers)):
            by_id = {video.vid: video for video in window}
            for result in _curate_window(ray, list(by_id.values()), job, pool):
                by_id.pop(result.vid, None)
                yield result
            # Blocks that Ray itself has given up.
            yield from (VideoResult(vid, FAILED, _LOST) for vid in by_id)

    return work


def stop_ray() -> None:
    """Leave the cluster, or stop Ray on this machine."""
    import ray

    ray.shutdown()


def _curate_window(ray: Any, window: list[CaptionedVideo], job: CurationJob, pool: RayPool) -> Iterator[VideoResult]:
    rows = [{"video": pickle.dumps(video)} for video in window]
    # A row a block: each result comes as soon as it is there, and a worker that dies takes one video with it.
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        CurationActor,
        fn_constructor_kwargs={"job": job},
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=pool.workers, max_tasks_in_flight_per_actor=2),
        num_cpus=pool.cpus,
        num_gpus=pool.gpus,
    )
    try:
        for row in dataset.iter_rows():
            result: VideoResult | OSError = pickle.loads(row["result"])  # noqa: S301 - our own
            if isinstance(result, OSError):
                raise result
            yield result
    except ray.exceptions.RayError as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[-1][:_LONGEST_REASON]
        raise BackendError(f"the workers on Ray ended: {reason}", "RAY") from error


def _started_ray(pool: RayPool) -> Any:
    # Ray would report how it is used over the network.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Its C++ part warns of each pool of actors that Ray Data itself makes; what goes wrong comes as an exception.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        line = pip_line("'ray[data]'")
        raise BackendError(f"several workers need Ray; run: {line}", "PACKAGE_MISSING") from error
    options: dict[str, Any] = {"address": pool.address} if pool.address else _local_options(pool)
    try:
        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR, ignore_reinit_error=True)
    except Exception as error:  # Ray raises bare ones, as when a busy machine starts it too slowly
        where, reason = pool.address or "this machine", " ".join(str(error).split())[:_LONGEST_REASON]
        raise BackendError(
            f"Ray at {where!r} cannot be used; try again, or leave out --workers and --address: {reason}", "RAY"
        ) from error
    context = ray.data.DataContext.get_current()
    context.max_errored_blocks = -1
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray


def _local_options(pool: RayPool) -> dict[str, Any]:
    # One core is Ray's own: it makes the rows while the workers work.
    cores = int(pool.workers * pool.cpus) + 1
    return {"num_cpus": max(cores, os.cpu_count() or 1), "include_dashboard": False}
