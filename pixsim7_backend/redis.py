"""Redis, where it is configured: one client per process, made when first asked for."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis import Redis
    from redis.asyncio import Redis as AsyncRedis

__all__ = [
    "RedisNotConfiguredError",
    "check_redis",
    "close_redis",
    "configure_redis",
    "get_redis",
    "new_async_redis",
    "redis_url",
    "use_clients",
]

EXAMPLE = "redis://127.0.0.1:6379/0"
_CHECK_TIMEOUT = 3.0


class RedisNotConfiguredError(Exception):
    """``REDIS_URL`` is not set, or is not a Redis URL."""


class _Process:
    """The client of this process, the URL it was given where that is not from the environment, and other makers."""

    mutex = threading.Lock()
    url: str | None = None
    client: Redis | None = None
    make: Callable[[], Redis] | None = None
    make_async: Callable[[], AsyncRedis] | None = None


def redis_url() -> str:
    """Return the URL given to :func:`configure_redis`, or else ``REDIS_URL`` of the environment.

    Raises:
        RedisNotConfiguredError: neither is there.
    """
    return _wanted(_Process.url or os.environ.get("REDIS_URL", ""))


def configure_redis(url: str | None) -> None:
    """Use this Redis in this process; None: ask the environment. The client so far is closed."""
    close_redis()
    _Process.url = url


def use_clients(make: Callable[[], Redis], make_async: Callable[[], AsyncRedis]) -> None:
    """Let :func:`get_redis` and :func:`new_async_redis` give clients that these make, whatever is configured."""
    close_redis()
    _Process.make, _Process.make_async = make, make_async


def get_redis() -> Redis:
    """Return the process's client, which keeps a pool of connections and is safe to share among threads.

    Raises:
        RedisNotConfiguredError: ``REDIS_URL`` is not set or malformed.
    """
    with _Process.mutex:
        if _Process.client is None:
            _Process.client = _Process.make() if _Process.make is not None else _connect(redis_url())
        return _Process.client


def new_async_redis(*, connections: int | None = None, timeout: float | None = None) -> AsyncRedis:
    """Return a new async client; it belongs to the running event loop, and the caller closes it.

    Args:
        connections: at most so many; who finds none free waits for one. None: as many as are wanted.
        timeout: seconds that connecting and an answer may take; None: any time.

    Raises:
        RedisNotConfiguredError: ``REDIS_URL`` is not set or malformed.
    """
    if _Process.make_async is not None:
        return _Process.make_async()
    from redis.asyncio import BlockingConnectionPool, ConnectionPool
    from redis.asyncio import Redis as AsyncRedis

    url = redis_url()
    options: dict[str, Any] = {"socket_connect_timeout": timeout, "socket_timeout": timeout}
    try:
        if connections is None:
            pool = ConnectionPool.from_url(url, **options)
        else:
            pool = BlockingConnectionPool.from_url(url, max_connections=connections, timeout=timeout, **options)
    except ValueError:
        raise _malformed(url) from None
    return AsyncRedis.from_pool(pool)


def close_redis() -> None:
    """Close the process's client; the next :func:`get_redis` makes a new one."""
    with _Process.mutex:
        client, _Process.client = _Process.client, None
    if client is not None:
        client.close()


def check_redis(url: str | None = None) -> str | None:
    """Return None when Redis answers at ``url`` (None: the configured one), else a sentence with the setting."""
    try:
        url = redis_url() if url is None else _wanted(url)
        client = _connect(url, timeout=_CHECK_TIMEOUT)
    except RedisNotConfiguredError as error:
        return str(error)
    from redis.exceptions import RedisError

    try:
        client.ping()
    except (RedisError, OSError) as error:
        return f"Redis at {_shown(url)} does not answer ({type(error).__name__}); start it, or correct REDIS_URL"
    finally:
        client.close()
    return None


def _wanted(url: str) -> str:
    if not url.strip():
        raise RedisNotConfiguredError(f"set REDIS_URL, e.g. {EXAMPLE}")
    return url.strip()


def _connect(url: str, timeout: float | None = None) -> Redis:
    from redis import Redis

    try:
        client: Redis = Redis.from_url(url, socket_connect_timeout=timeout, socket_timeout=timeout)
    except ValueError:
        raise _malformed(url) from None
    return client


def _shown(url: str) -> str:
    from pixsim7_backend.db.urls import redact

    return redact(url)


def _malformed(url: str) -> RedisNotConfiguredError:
    return RedisNotConfiguredError(f"REDIS_URL ({_shown(url)}) is not a Redis URL; write it like {EXAMPLE}")
