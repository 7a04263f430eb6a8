"""Rewrite paths in the CMake files of the ROS wheels to this Python.

The wheels were built in a container, so their CMake targets contain paths of its Python: the include folders of
Python and numpy under ``/opt/python/cpXY-cpXY``. Compiling messages against them fails on every other machine. This
rewrites those paths in the given prefix; running it again changes nothing.
"""

import re
import sys
import sysconfig
from pathlib import Path

import numpy as np

BUILD_PYTHON = r"/opt/python/cp3\d+-cp3\d+t?"
NUMPY_INCLUDE = re.compile(BUILD_PYTHON + r"/lib/python3\.\d+t?/site-packages/numpy/(?:_core|core)/include")
PYTHON_INCLUDE = re.compile(BUILD_PYTHON + r"/include/python3\.\d+t?")


def relocate(prefix: Path) -> int:
    """Rewrite the CMake files under ``prefix/share``.

    Args:
        prefix: The virtual environment the wheels are installed in.

    Returns:
        How many files were changed; 0 when it was done before.
    """
    python_include, numpy_include = sysconfig.get_path("include"), np.get_include()
    changed = 0
    for path in sorted((prefix / "share").rglob("*.cmake")):
        text = path.read_text(encoding="utf-8")
        # The replacements are functions, because a backslash in a replacement string has a special meaning.
        moved = NUMPY_INCLUDE.sub(lambda _: numpy_include, text)
        moved = PYTHON_INCLUDE.sub(lambda _: python_include, moved)
        if moved != text:
            path.write_text(moved, encoding="utf-8")
            changed += 1
    return changed


if __name__ == "__main__":
    print(f"setup: pointed {relocate(Path(sys.prefix))} CMake files of the ROS wheels at this Python")
