"""Files: which are read, and how outputs are written.

An output that is a regular file appears only when it is complete; anything else is written into, never replaced.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

_LONGEST_NAME_BYTES = 255
_LFS_HEAD = b"version https://git-lfs.github.com/spec/"
# As many links in a row as Linux follows.
_MOST_LINKS = 40
# Errors of a rename over a file that is a mount point of its own, or lies on another file system.
_CANNOT_RENAME = (errno.EBUSY, errno.EXDEV)


LARGEST_TEXT_BYTES = 64 << 20
"""Longest file of settings that is read [bytes]."""


def check_plain(path: Path, most_bytes: int | None = None) -> None:
    """Refuse what is no regular file, or too large: a pipe or device would keep its reader waiting, or fill the memory.

    Args:
        path: The file, or a link to it.
        most_bytes: Largest size; None for any.

    Raises:
        OSError: It is missing, or not such a file; ``strerror`` says why.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    if most_bytes is not None and status.st_size > most_bytes:
        raise OSError(errno.EFBIG, f"it has {status.st_size} bytes, more than {most_bytes}", str(path))


def check_inside(path: Path, folder: Path) -> None:
    """Refuse a link that leads out of a model's folder: it would make whoever loads the model read files of others.

    Links to the folder ``blobs`` beside the snapshots are the layout of the Hugging Face hub's cache, and allowed.

    Args:
        path: A file in the folder, or a link there. It may be missing.
        folder: The model's folder; it may itself be reached by a link.

    Raises:
        OSError: It leads out, or in a circle; ``strerror`` says so.
    """
    home = Path(os.path.realpath(folder))
    roots = [home]
    for inner in (home, *home.parents):
        if inner.parent.name == "snapshots":
            roots.append(Path(os.path.realpath(inner.parent.parent / "blobs")))
            break
    if not any(Path(os.path.realpath(path)).is_relative_to(root) for root in roots):
        raise OSError(errno.EPERM, "it is a link out of its folder; put the file itself there", str(path))


def read_settings_text(path: Path, folder: Path | None = None) -> str:
    """Return the text of a file of settings of somebody else, without a byte order mark.

    Args:
        path: The file.
        folder: The folder that links may not lead out of; that of the file if omitted.

    Raises:
        OSError: It cannot be read, is no regular file, a link out of the folder, or larger than
            :data:`LARGEST_TEXT_BYTES`.
        UnicodeDecodeError: It is not UTF-8.
    """
    check_inside(path, path.parent if folder is None else folder)
    check_plain(path, LARGEST_TEXT_BYTES)
    return path.read_text(encoding="utf-8-sig")


def temporary_beside(path: str | PathLike[str]) -> Path:
    """Return a temporary path in the folder of ``path``, with the same ending, for this process only."""
    path = Path(path)
    ending = f".{os.getpid()}.partial{path.suffix}"
    room = _LONGEST_NAME_BYTES - len(os.fsencode(f".{ending}"))
    # Half a character at the cut becomes an escaped byte, which is fine in a file name.
    stem = os.fsdecode(os.fsencode(path.stem)[: max(room, 1)])
    return path.with_name(f".{stem}{ending}")


@contextmanager
def atomic_path(path: str | PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path to write to; its content is published as ``path`` when the block succeeds.

    Missing parent folders are made. If the block raises, the temporary file is removed, and an
    existing ``path`` is not changed. See :func:`publish` for links, devices and pipes.

    Raises:
        OSError: The folder or file cannot be written.
    """
    temporary = draft_of(path)
    try:
        yield temporary
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def draft_of(path: str | PathLike[str]) -> Path:
    """Return the temporary path that :func:`publish` will publish as ``path``; missing parent folders are made.

    Raises:
        OSError: ``path`` is a folder, a block device or write-protected, or its folder cannot be made.
    """
    path = Path(path)
    if not is_stream(path):
        target = _target(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = temporary_beside(target)
        # In a container, a single file is often mounted into a folder that is not the user's.
        if not target.exists() or os.access(target.parent, os.W_OK):
            return beside
    handle, name = tempfile.mkstemp(suffix=path.suffix)
    os.close(handle)
    return Path(name)


def publish(draft: Path, path: str | PathLike[str]) -> None:
    """Put the content of a finished draft in place of ``path``; the draft is gone afterwards.

    A regular file is replaced in one step and keeps its permissions and owner; its other hard links keep the old
    content. A symbolic link stays, and the file that it leads to is replaced. A pipe, a character device and an open
    file of this process (``/dev/stdout``) are written into, and so is a file that is a mount point.

    Raises:
        OSError: ``path`` is a folder, a block device or write-protected, or it cannot be written.
    """
    path = Path(path)
    if is_stream(path):
        _write_into(draft, path)
        return
    target = _target(path)
    if target.exists():
        _keep_owner_and_mode(draft, target)
    try:
        os.replace(draft, target)
    except OSError as error:
        if error.errno not in _CANNOT_RENAME:
            raise
        _write_into(draft, target)


def is_stream(path: str | PathLike[str]) -> bool:
    """Return whether output to ``path`` is written into it as it comes: a pipe, a character device or an open file.

    Raises:
        OSError: ``path`` is a folder or a block device, or its links lead in a circle.
    """
    path = Path(path)
    if _is_open_file(path):
        return True
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    if stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        kind = "a disk" if stat.S_ISBLK(mode) else "a socket"
        raise OSError(errno.EINVAL, f"it is {kind}, not a file, so nothing is written to it", str(path))
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder; give the name of a file", str(path))
    return not stat.S_ISREG(mode)


def lfs_pointer(path: Path) -> bool:
    """Return whether a file is the stand-in that Git leaves for a large file when it is cloned without Git LFS."""
    try:
        check_plain(path)
        with path.open("rb") as file:
            return file.read(len(_LFS_HEAD)) == _LFS_HEAD
    except (OSError, ValueError):
        return False


def is_same_file(path: Path, others: Iterable[str | PathLike[str]]) -> bool:
    """Return whether ``path`` exists and is one of the others, by whatever name, link or mount."""
    try:
        own = path.stat()
    except (OSError, ValueError):
        return False
    for other in others:
        try:
            if os.path.samestat(own, Path(other).stat()):
                return True
        except (OSError, ValueError):
            continue
    return False


def _target(path: Path) -> Path:
    """Return the file that ``path`` leads to; it may not exist yet."""
    target = Path(os.path.realpath(path))
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "the file is write-protected", str(path))
    return target


def _is_open_file(path: Path) -> bool:
    """Return whether a path leads to an open file of a process, as ``/dev/stdout`` does, wherever that is stored."""
    for _ in range(_MOST_LINKS):
        parent = os.path.realpath(path.parent)
        if parent.startswith("/proc/"):
            return True
        try:
            path = Path(parent) / (Path(parent) / path.name).readlink()
        except OSError:
            return False
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def _write_into(draft: Path, path: Path) -> None:
    with draft.open("rb") as source, path.open("wb") as target:
        shutil.copyfileobj(source, target)
    draft.unlink()


def _keep_owner_and_mode(draft: Path, target: Path) -> None:
    before = target.stat()
    draft.chmod(stat.S_IMODE(before.st_mode))
    made = draft.stat()
    if (made.st_uid, made.st_gid) != (before.st_uid, before.st_gid):
        try:
            os.chown(draft, before.st_uid, before.st_gid)
            # A change of owner clears the set-user-id bits.
            draft.chmod(stat.S_IMODE(before.st_mode))
        except OSError:
            return  # only root may give files away
