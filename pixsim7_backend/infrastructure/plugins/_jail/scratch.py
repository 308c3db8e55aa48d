"""The one directory that a jail can write to: private, measured by the host, and gone when the jail is."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

__all__ = ["ScratchDirectories", "ScratchUse", "measure"]

_PREFIX = "pixsim7-jails-"
_BLOCK = 512
_FRESH = 60.0
_MOST_ENTRIES = 100_000


@dataclass(frozen=True, slots=True)
class ScratchUse:
    """What lies in a scratch directory: bytes on the disk, and entries of any kind."""

    size: int
    entries: int


TOO_MUCH = ScratchUse(sys.maxsize, sys.maxsize)
"""Of a directory that cannot be measured, since its owner made it so."""


def measure(directory: str, most_entries: int = _MOST_ENTRIES) -> ScratchUse:
    """Return what lies below a directory; gives up, with TOO_MUCH, behind so many entries.

    Its owner may change it meanwhile: what vanishes counts nothing. No link is followed.
    """
    size = entries = 0
    left = [directory]
    while left:
        try:
            with os.scandir(left.pop()) as found:
                for entry in found:
                    entries += 1
                    if entries > most_entries:
                        return TOO_MUCH
                    with contextlib.suppress(FileNotFoundError):
                        size += entry.stat(follow_symlinks=False).st_blocks * _BLOCK
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno in (errno.ENAMETOOLONG, errno.EACCES):  # nested too deep, or closed to the host
                return TOO_MUCH
            raise
    return ScratchUse(size, entries)


class ScratchDirectories:
    """Makes scratch directories in one directory of this process, below ``parent``.

    What a process left behind that was killed, the next one removes.
    """

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = Path(tempfile.gettempdir() if parent is None else parent).resolve()
        self._root: Path | None = None
        self._lock = -1

    def make(self, name: str, uid: int | None) -> Path:
        """Return a new directory that only ``uid`` can enter; None: the host's user."""
        path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._open()))
        if uid is not None:
            os.chown(path, uid, uid)
        return path

    def remove(self, path: Path) -> None:
        """Remove one of them with all that is in it; its jail must have ended."""
        with contextlib.suppress(FileNotFoundError):
            _remove(path)

    def close(self) -> None:
        """Remove all of them."""
        root, self._root = self._root, None
        if root is not None:
            self.remove(root)
            os.close(self._lock)

    def forget(self) -> None:
        """Leave them to the process that this one is a copy of."""
        root, self._root = self._root, None
        if root is not None:
            os.close(self._lock)

    def _open(self) -> Path:
        if self._root is None:
            for stale in self._iter_stale():
                with contextlib.suppress(OSError):
                    _remove(stale)
            root = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._parent))
            root.chmod(0o711)  # their users pass through it
            self._lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self._root = root
        return self._root

    def _iter_stale(self) -> Iterator[Path]:
        for path in self._parent.glob(f"{_PREFIX}*"):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                found = os.fstat(descriptor)
                if found.st_uid == os.geteuid() and time.time() - found.st_mtime > _FRESH:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    yield path
            except BlockingIOError:
                continue
            finally:
                os.close(descriptor)


def _remove(path: Path) -> None:
    """Remove a directory, however deep a stranger has nested others in it.

    Directories in it are moved up to its top until there are none: no path becomes long, no descent deep.
    """
    top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    names = (f".removed-{secrets.token_hex(8)}" for _ in repeat(None))  # its owner cannot have taken them
    try:
        while found := os.listdir(top):  # noqa: PTH208 - by descriptor
            for name in found:
                if stat.S_ISDIR(os.stat(name, dir_fd=top, follow_symlinks=False).st_mode):
                    _empty(name, top, names)
                    os.rmdir(name, dir_fd=top)
                else:
                    os.unlink(name, dir_fd=top)
    finally:
        os.close(top)
    path.rmdir()


def _empty(name: str, top: int, names: Iterator[str]) -> None:
    """Remove the files in a directory; move the directories in it to ``top``, under new names."""
    os.chmod(name, 0o700, dir_fd=top)
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
    try:
        for inner in os.listdir(descriptor):  # noqa: PTH208 - by descriptor
            if stat.S_ISDIR(os.stat(inner, dir_fd=descriptor, follow_symlinks=False).st_mode):
                os.chmod(inner, 0o700, dir_fd=descriptor)  # moving a directory changes what is in it
                os.rename(inner, next(names), src_dir_fd=descriptor, dst_dir_fd=top)
            else:
                os.unlink(inner, dir_fd=descriptor)
    finally:
        os.close(descriptor)
