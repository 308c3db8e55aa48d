"""Whether a jail's user can read what it needs, said before Python says it less clearly."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable

__all__ = ["UnreadableError", "check_files", "check_readable"]

_MOST_FILES = 2000


class UnreadableError(Exception):
    """The user that a plugin would run as cannot read something; the text says what, and the ways out."""

    def __init__(self, path: str, closed: str) -> None:
        super().__init__(
            f"the user {os.getuid()}, as which the plugin would run, cannot read {path}, because {closed} is closed to "
            f"others. Open it (chmod o+rX {closed}), put it where others can read it, or let plugins run as the "
            "host's user"
        )
        self.path = path
        self.closed = closed


def check_readable(directories: Iterable[str]) -> None:
    """Make sure that this process can list these directories and read what is in them.

    Raises:
        FileNotFoundError: one does not exist.
        UnreadableError: it cannot.
    """
    for directory in directories:
        with contextlib.suppress(PermissionError):
            os.stat(directory)  # noqa: PTH116 - raises, and names it
        if not os.access(directory, os.R_OK | os.X_OK):
            raise UnreadableError(directory, _find_closed(directory))


def check_files(directory: str) -> None:
    """Make sure that this process can read the files of a plugin.

    Raises:
        UnreadableError: it cannot read one of the first two thousand.
    """
    seen = 0
    for folder, _, files in os.walk(directory):
        for name in files:
            path, seen = f"{folder}/{name}", seen + 1
            if seen > _MOST_FILES:
                return
            if not os.access(path, os.R_OK):
                raise UnreadableError(path, path)


def _find_closed(path: str) -> str:
    """Return the outermost part of the path that cannot be passed."""
    parts = path.split("/")
    for end in range(1, len(parts)):
        parent = "/".join(parts[:end]) or "/"
        if not os.access(parent, os.X_OK):
            return parent
    return path
