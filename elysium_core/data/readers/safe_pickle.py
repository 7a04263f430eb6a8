"""Reading of pickles that hold plain values only: the old form in which RefCOCO is published."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NoReturn

from elysium_core.errors import DataError


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler without globals: no class, no function and so no code can be reached."""

    def find_class(self, module_name: str, global_name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it refers to an object outside the file")


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle (also of Python 2) of dicts, lists, tuples, texts and numbers.

    Raises:
        DataError: The file is missing, damaged, or asks for anything but plain values.
    """
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="latin1").load()
    except OSError as error:
        raise DataError(f"cannot read {str(path)!r}: {error.strerror or error}") from error
    # A damaged pickle may raise nearly anything; the file is named in every case.
    except Exception as error:
        raise DataError(f"{str(path)!r} is no pickle of plain values ({error}); it was not loaded") from error
