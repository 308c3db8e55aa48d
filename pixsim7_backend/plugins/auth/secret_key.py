"""Where the signing secret comes from: the setting, else a random one that is made once and kept in a file."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import stat
from pathlib import Path

FILE_NAME = "secret_key"
SHORTEST = 32
_KNOWN = frozenset(
    {"secret", "secretkey", "changeme", "changethis", "changemeinproduction", "yoursecretkey", "supersecret", "default",
     "dev", "devsecret", "development", "insecure", "test", "testing", "password", "pixsim", "replaceme", "example",
     "please", "change", "your", "super", "jwt", "key", "production", "value", "this", "with", "random", "use", "in",
     "to", "me", "my", "the", "is"}
)  # fmt: skip
_log = logging.getLogger(__name__)


class WeakSecretError(Exception):
    """The signing secret could be guessed, so anybody could sign tokens with it."""


def resolve_secret(configured: str | None, *, debug: bool, data_dir: Path) -> str:
    """Return the secret that signs tokens.

    Args:
        configured: the setting ``SECRET_KEY``; it wins where it is set.
        debug: whether a weak setting is let through, with a warning.
        data_dir: where the random secret is kept that is used without the setting.

    Raises:
        WeakSecretError: the setting, or what the file holds, is too short or widely known.
    """
    if not configured:
        return stored_secret(data_dir)
    weakness = find_weakness(configured)
    if weakness and not debug:
        raise WeakSecretError(f"SECRET_KEY {weakness}; {_REMEDY}, or unset it to have one made and kept")
    if weakness:
        _log.warning("SECRET_KEY %s; this is let through only because DEBUG is on", weakness)
    return configured


_REMEDY = "set it to the output of `openssl rand -base64 48`"


def find_weakness(secret: str) -> str | None:
    """Return what is wrong with a secret, or None."""
    plain = "".join(character for character in secret.lower() if character.isalpha())
    unknown = plain
    for word in sorted(_KNOWN, key=len, reverse=True):
        unknown = unknown.replace(word, "")
    if len(secret.encode()) < SHORTEST:
        return f"has fewer than {SHORTEST} bytes"
    if len(set(secret)) < 10 or (plain and not unknown):
        return "is a default or well-known value"
    return None


def stored_secret(data_dir: Path) -> str:
    """Return the secret kept under ``data_dir``, making it first where there is none.

    Several workers may ask at once: the file appears whole or not at all, and the first one wins.

    Raises:
        WeakSecretError: the file holds less than a secret.
    """
    path = data_dir / FILE_NAME
    if not path.exists():
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        _publish(path, secrets.token_urlsafe(48))
    secret = _read_private(path)
    if find_weakness(secret):
        raise WeakSecretError(f"{path} does not hold a secret; delete it to have a new one made (all logins end)")
    return secret


def _publish(path: Path, secret: str) -> None:
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secret)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another worker was first: its secret counts
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
