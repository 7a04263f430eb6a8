"""Writes the lock files in requirements/ from the installed and tested packages of this environment.

Direct requirements come from setup.py (purposes ``core`` and the extras) and from requirements/ros.in (``ros``). Each
lock file lists them and their dependencies at the installed versions. To renew: install the newer versions into the
virtual environment, run the tests, then ``.venv/bin/python tools/lock.py core ros dev``.
"""

from __future__ import annotations

import argparse
import importlib.metadata as metadata
import platform
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FOLDER = Path(__file__).resolve().parent.parent / "requirements"
CORE = "elysium-core"
HEADER = "# Written by tools/lock.py; do not edit. Tested on Linux x86-64 with Python {python}.\n"


def direct_requirements(purpose: str) -> list[Requirement]:
    """Return the direct requirements of a purpose.

    Args:
        purpose: ``core``, an extra of setup.py, or the stem of a ``requirements/*.in`` file.

    Raises:
        SystemExit: There is no such purpose.
    """
    source = FOLDER / f"{purpose}.in"
    if source.is_file():
        lines = (line.split("#")[0].strip() for line in source.read_text(encoding="utf-8").splitlines())
        return [Requirement(line) for line in lines if line]
    extras = metadata.metadata(CORE).get_all("Provides-Extra") or []
    if purpose != "core" and purpose not in extras:
        raise SystemExit(f"lock: there is no purpose {purpose!r}; choose core, ros, {', '.join(extras)}")
    everything = [Requirement(text) for text in metadata.requires(CORE) or []]
    if purpose == "core":
        return [requirement for requirement in everything if applies(requirement, "")]
    return [r for r in everything if not applies(r, "") and applies(r, purpose)]


def applies(requirement: Requirement, extra: str) -> bool:
    """Return whether a requirement applies to this machine when ``extra`` is asked for ("" for none)."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def closure(requirements: Iterable[Requirement]) -> dict[str, str]:
    """Return name and installed version of the requirements and their dependencies.

    Raises:
        SystemExit: One of them is not installed.
    """
    pins: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    pending = list(requirements)
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        extras = {"", *requirement.extras}
        new = {extra for extra in extras if (name, extra) not in seen}
        seen.update((name, extra) for extra in new)
        if not new:
            continue
        try:
            # A local version ("+cpu") names one build of a release; the lock names the release.
            pins[name] = metadata.version(name).split("+")[0]
        except metadata.PackageNotFoundError:
            raise SystemExit(f"lock: {requirement} is not installed; install it, then lock again") from None
        needs = [Requirement(text) for text in metadata.requires(name) or []]
        pending += [need for need in needs if any(applies(need, extra) for extra in new)]
    return pins


def write_lock(purpose: str) -> int:
    """Write ``requirements/PURPOSE.txt``; return how many distributions it pins."""
    pins = closure(direct_requirements(purpose))
    python = ".".join(platform.python_version_tuple()[:2])
    lines = [f"{name}=={version}\n" for name, version in sorted(pins.items())]
    (FOLDER / f"{purpose}.txt").write_text(HEADER.format(python=python) + "".join(lines), encoding="utf-8")
    return len(pins)


def main() -> None:
    """Lock the purposes named on the command line."""
    parser = argparse.ArgumentParser(description="Write requirements/PURPOSE.txt from the installed versions.")
    parser.add_argument("purpose", nargs="+", help="core, ros, or an extra of setup.py")
    for purpose in parser.parse_args().purpose:
        print(f"lock: requirements/{purpose}.txt pins {write_lock(purpose)} distributions")


if __name__ == "__main__":
    main()
