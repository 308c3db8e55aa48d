"""One user of Redis for each community plugin: may run the named commands on the plugin's own keys, and no more.

Without it the broker checks the same; with it Redis checks once more, and another client's mistake cannot reach
further. Redis forgets users when it restarts, unless it has an ACL file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis import ConnectionPool, Redis
from redis.exceptions import ResponseError

from pixsim7_backend.infrastructure.plugins._grants.permissions import Grants, Permission
from pixsim7_backend.kept_secret import kept_secret

from .commands import COMMANDS, Need

__all__ = ["AppliedRedisUser", "apply_redis_grants", "password_of", "prefix_of", "remove_redis_user", "user_of"]

_SECRETS = "community-roles"


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedRedisUser:
    """What a plugin's user may do now, or would."""

    user: str
    rules: tuple[str, ...]
    """As in ``ACL SETUSER``, without the password; empty where there is no user, since nothing is granted."""
    is_kept: bool
    """Redis wrote it to its ACL file, so that it is there after a restart, too."""


def prefix_of(plugin: str) -> str:
    """Return what all keys of a plugin begin with."""
    return f"pixsim7:plugin:{plugin}:"


def user_of(plugin: str, db: int) -> str:
    """Return the name of a plugin's user. Users belong to the whole server, so the database's number is part of it."""
    return f"pixsim7-{db}-{plugin}"


def password_of(plugin: str, db: int, data_dir: Path) -> str | None:
    """Return the password of a plugin's user; None where nobody has made it."""
    path = _secret_path(plugin, db, data_dir)
    return kept_secret(path) if path.exists() else None


def has_user(url: str, plugin: str, data_dir: Path) -> bool:
    """Tell whether somebody has made the plugin a user; nobody is asked."""
    return _secret_path(plugin, _db_of(url), data_dir).exists()


def apply_redis_grants(
    url: str, plugin: str, grants: Grants, *, data_dir: Path, dry_run: bool = False
) -> AppliedRedisUser:
    """Make the plugin's user, or bring it back to exactly what is granted. Doing it twice is fine.

    Args:
        url: of the host's own login, which must be allowed to run ``ACL``.
        plugin: its id.
        grants: what the operator gave it; without any for Redis the user is removed.
        data_dir: where the user's password is kept.
        dry_run: change nothing.

    Raises:
        redis.exceptions.RedisError: Redis does not answer, or does not let the host do that.
    """
    with Redis.from_url(url) as client:
        db = _db_of(url)
        rules = _rules(plugin, db, grants)
        if dry_run:
            return AppliedRedisUser(user=user_of(plugin, db), rules=rules, is_kept=False)
        if not rules:
            _remove(client, plugin, db, data_dir)
        else:
            password = kept_secret(_secret_path(plugin, db, data_dir))
            hashed = f"#{hashlib.sha256(password.encode()).hexdigest()}"
            _acl(client, "SETUSER", user_of(plugin, db), "reset", "on", hashed, *rules)
        return AppliedRedisUser(user=user_of(plugin, db), rules=rules, is_kept=_keep(client))


def remove_redis_user(url: str, plugin: str, *, data_dir: Path) -> None:
    """Delete the plugin's user and all of its keys. Doing it twice is fine."""
    with Redis.from_url(url) as client:
        _remove(client, plugin, _db_of(url), data_dir)
        for key in client.scan_iter(match=f"{prefix_of(plugin)}*", count=500):
            client.unlink(key)
        _keep(client)


def _remove(client: Redis, plugin: str, db: int, data_dir: Path) -> None:
    _acl(client, "DELUSER", user_of(plugin, db))
    _secret_path(plugin, db, data_dir).unlink(missing_ok=True)


def _db_of(url: str) -> int:
    return int(ConnectionPool.from_url(url).connection_kwargs.get("db") or 0)


def _keep(client: Redis) -> bool:
    try:
        _acl(client, "SAVE")
    except ResponseError:  # it has no ACL file
        return False
    return True


def _acl(client: Any, *words: str) -> None:
    client.execute_command("ACL", *words)


def _secret_path(plugin: str, db: int, data_dir: Path) -> Path:
    return data_dir / _SECRETS / f"redis-{db}-{plugin}"


def _rules(plugin: str, db: int, grants: Grants) -> tuple[str, ...]:
    read, write = (_patterns(plugin, grants, name) for name in ("redis:read", "redis:write"))
    if not read and not write:
        return ()
    keys = [f"%{_access(each, read, write)}~{each}" for each in sorted(read | write)]
    commands = sorted(name.lower() for name, form in COMMANDS.items() if _is_of_use(form.need, read, write))
    selecting = ["+select"] if db else []
    return (*keys, *(f"+{name}" for name in commands), *selecting)


def _patterns(plugin: str, grants: Grants, name: str) -> frozenset[str]:
    """Return the keys that are granted, as Redis writes patterns."""
    items = (each.items or frozenset({"*"}) for each in grants.granted if each.name == name)
    return frozenset(f"{prefix_of(plugin)}{item}" for some in items for item in some)


def _access(pattern: str, read: Iterable[str], write: Iterable[str]) -> str:
    """Return R, W or RW: what is granted for the keys of a pattern, also by wider ones."""
    return "".join(letter for letter, granted in (("R", read), ("W", write)) if _has(granted, pattern))


def _has(granted: Iterable[str], pattern: str) -> bool:
    items = frozenset(granted)
    return bool(items) and Permission("redis", items).has_item(pattern)


def _is_of_use(need: Need, read: frozenset[str], write: frozenset[str]) -> bool:
    return (bool(read) or not need.reads) and (bool(write) or not need.writes)
