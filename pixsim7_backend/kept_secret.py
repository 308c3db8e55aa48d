"""A random secret that is made once and kept in a file of its owner."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import stat
from pathlib import Path

__all__ = ["SHORTEST_SECRET", "kept_secret"]

SHORTEST_SECRET = 32
"""Characters, all of them ASCII."""
_log = logging.getLogger(__name__)


def kept_secret(path: Path) -> str:
    """Return the secret in ``path``, making it first where there is none.

    Several processes may ask at once: the file appears whole or not at all, and the first one wins. One
    that others may read is closed to them, with a warning; a symbolic link is not followed.

    Raises:
        ValueError: the file holds less than a secret.
        OSError: it cannot be read or made.
    """
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _publish(path, secrets.token_urlsafe(48))
    secret = _read_private(path)
    if len(secret) < SHORTEST_SECRET or not secret.isascii():
        problem = "does not hold a secret; restore it from a backup, or delete it to have a new one made"
        raise ValueError(f"{path} {problem} (what was encrypted with it is lost)")
    return secret


def _publish(path: Path, secret: str) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secret)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process was first: its secret counts
            os.link(draft, path)
    finally:
        draft.unlink()


def _read_private(path: Path) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, encoding="ascii", errors="replace") as file:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if mode & 0o077:
            _log.warning("%s was readable by others (%o); it is now private to its owner", path, mode)
            os.fchmod(descriptor, 0o600)
        return file.read().strip()
