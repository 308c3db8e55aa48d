"""Where the signing secret comes from: the setting, else a random one that is made once and kept in a file."""

from __future__ import annotations

import logging
from pathlib import Path

from pixsim7_backend.kept_secret import SHORTEST_SECRET, kept_secret

FILE_NAME = "secret_key"
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
    if len(secret.encode()) < SHORTEST_SECRET:
        return f"has fewer than {SHORTEST_SECRET} bytes"
    if len(set(secret)) < 10 or (plain and not unknown):
        return "is a default or well-known value"
    return None


def stored_secret(data_dir: Path) -> str:
    """Return the secret kept under ``data_dir``, making it first where there is none; see :func:`kept_secret`.

    Raises:
        WeakSecretError: the file holds less than a secret.
    """
    path = data_dir / FILE_NAME
    try:
        secret = kept_secret(path)
    except ValueError:
        secret = ""
    if find_weakness(secret):
        raise WeakSecretError(f"{path} does not hold a secret; delete it to have a new one made (all logins end)")
    return secret
