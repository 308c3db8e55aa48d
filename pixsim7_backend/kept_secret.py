"""A random secret that is made once and kept in a file of its owner."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

__all__ = ["kept_secret"]


def kept_secret(path: Path) -> str:
    """Return the secret in ``path``, making it first where there is none.

    Several processes may ask at once: the file appears whole or not at all, and the first one wins.

    Raises:
        ValueError: the file holds less than a secret.
    """
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _publish(path, secrets.token_urlsafe(48))
    secret = path.read_text(encoding="ascii", errors="replace").strip()
    if len(secret) < 32:
        raise ValueError(f"{path} does not hold a secret; restore it from a backup")
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
