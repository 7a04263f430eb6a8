"""The kept tracks as files: a JSON line each in the layout of ElysiumTrack, and tar shards for webdataset."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from elysium_core.curation.curation_ledger import CurationLedger
from elysium_core.io.files import atomic_path

SPLIT = "curated"
"""Name of the split: ``elysium eval elysiumtrack --split curated`` reads the lines."""

SHARD_VIDEOS = 64
"""Videos a shard."""

Videos = Sequence[tuple[str, list[dict[str, Any]]]]
"""Ids of videos with their lines."""


def write_lines(ledger: CurationLedger, out: Path) -> tuple[Path, int]:
    """Write ``ElysiumTrack-curated.json``, one line a kept track, in the order in which videos were finished.

    Returns:
        The file, and the number of lines.
    """
    path, count = out / f"ElysiumTrack-{SPLIT}.json", 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for _, lines in ledger.lines():
            for line in lines:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                count += 1
    return path, count


def write_curated_shards(ledger: CurationLedger, out: Path) -> Iterator[Path]:
    """Write ``curated-000000.tar`` ...; a sample has ``<vid>.json``, its lines, and ``<vid>.000000.jpg`` ...

    Shards that are there with the same videos are left as they are: only the last one of an earlier run may have grown.

    Yields:
        Each shard once it is there.
    """
    videos = ledger.lines()
    number = 0
    while members := list(islice(videos, SHARD_VIDEOS)):
        path = out / f"{SPLIT}-{number:06d}.tar"
        if not _has(path, members):
            _write_shard(path, members, out)
        yield path
        number += 1


def _write_shard(path: Path, members: Videos, out: Path) -> None:
    with atomic_path(path) as temporary, tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as shard:
        for vid, lines in members:
            _add(shard, f"{vid}.json", json.dumps(lines).encode())
            for name in lines[0]["frames"]:
                _add(shard, f"{vid}.{Path(name).name}", (out / name).read_bytes())


def _has(path: Path, members: Videos) -> bool:
    if not path.is_file():
        return False
    try:
        with tarfile.open(path) as shard:
            names = {name for name in shard.getnames() if name.endswith(".json")}
    except tarfile.TarError:
        return False
    return names == {f"{vid}.json" for vid, _ in members}


def _add(shard: tarfile.TarFile, name: str, data: bytes) -> None:
    # Only name and size, no times: the same videos give the same bytes.
    member = tarfile.TarInfo(name)
    member.size = len(data)
    shard.addfile(member, io.BytesIO(data))
