"""Writes the reference page of the parameters and the default parameter file.

``python -m elysium_ros.node.parameter_docs`` rewrites ``docs/parameters.md`` and ``config/tracker.yaml`` of the source
tree; a test compares both with the table. ``--check`` only says whether they are up to date.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from elysium_ros.node.load_parameters import ALIASES
from elysium_ros.node.parameter_spec import Change, Spec
from elysium_ros.node.parameters import SPECS

_ROOT = Path(__file__).resolve().parents[2]

_CHANGE_TEXT = {
    Change.ANY_TIME: "any time",
    Change.INACTIVE: "while not active",
    Change.READ_ONLY: "at start only",
}

_PAGE_HEAD = """# Parameters of `tracker_node`

Written by `python -m elysium_ros.node.parameter_docs` from the table in `elysium_ros/node/parameters.py`; do not
edit by hand.

*Change*: **any time** takes effect from the next image on; **while not active** is refused while the node is active
(deactivate it first); **at start only** is read-only. A value that cannot be used is refused with the reason; one in a
parameter file makes `configure` fail with the reason, and the node stays up.

| Name | Type | Default | Range or choices | Change | Meaning |
|---|---|---|---|---|---|
"""

_PAGE_TAIL = """
The names of Python and of the command line are taken too, at the start and by the parameter services: _ALIASES_.

Standard parameters work as everywhere: `use_sim_time`, and
`qos_overrides.<resolved image topic>.subscription.{reliability,depth,history}` for the image subscriptions, for example
`qos_overrides./camera/image_raw.subscription.reliability: reliable`. Best effort, the default, is right for a live
camera; for large images between two processes of one machine reliable loses fewer of them.
"""

_FILE_HEAD = """# Every parameter of tracker_node with its default; docs/parameters.md explains them.
# Written by `python -m elysium_ros.node.parameter_docs`. Copy it, keep the lines you change, and pass it with
# `ros2 launch elysium_ros track.launch.py params_file:=/path/to/your.yaml`.
/**:
  ros__parameters:
"""


def render_page() -> str:
    """Return the text of ``docs/parameters.md``."""
    return _PAGE_HEAD + "".join(_row(spec) for spec in SPECS.values()) + _PAGE_TAIL.replace("_ALIASES_", _alias_list())


def render_file() -> str:
    """Return the text of ``config/tracker.yaml``."""
    return _FILE_HEAD + "".join(f"    {spec.name}: {_yaml(spec.default)}\n" for spec in SPECS.values())


def _alias_list() -> str:
    return ", ".join(f"`{alias}` is `{name}`" for alias, name in ALIASES.items())


def _row(spec: Spec) -> str:
    allowed = ", ".join(f"`{choice}`" for choice in spec.choices)
    if spec.limits is not None:
        allowed = f"{spec.limits[0]:g}..{spec.limits[1]:g}"
    default = f"`{_yaml(spec.default)}`" + (f" {spec.unit}" if spec.unit else "")
    cells = (f"`{spec.name}`", spec.type_name, default, allowed, _CHANGE_TEXT[spec.change], spec.description)
    return "| " + " | ".join(cells) + " |\n"


def _yaml(value: object) -> str:
    # JSON is YAML, and quotes every text, so that no default is read back as another type.
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def main(arguments: list[str] | None = None) -> int:
    """Write or check the two files; return the exit code (1 = out of date)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is out of date")
    parser.add_argument("--root", type=Path, default=_ROOT, help="source tree (default: where this file lies)")
    options = parser.parse_args(arguments)
    targets = {
        options.root / "docs" / "parameters.md": render_page(),
        options.root / "config" / "tracker.yaml": render_file(),
    }
    stale = [path for path, text in targets.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        if options.check:
            sys.stderr.write(f"{path} is out of date; run python -m elysium_ros.node.parameter_docs\n")
        else:
            _write(path, targets[path])
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
