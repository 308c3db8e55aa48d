"""Redis, where it is configured: one client per process, made when first asked for."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from pixsim7_backend.db.urls import redact

if TYPE_CHECKING:
    from redis import Redis
    from redis.asyncio import Redis as AsyncRedis

__all__ = ["RedisNotConfiguredError", "check_redis", "close_redis", "get_async_redis", "get_redis"]

EXAMPLE = "redis://127.0.0.1:6379/0"
_CHECK_TIMEOUT = 3.0

_mutex = threading.Lock()
_client: Redis | None = None


class RedisNotConfiguredError(Exception):
    """``REDIS_URL`` is not set, or is not a Redis URL."""


def redis_url_from_environment() -> str:
    """Return ``REDIS_URL``.

    Raises:
        RedisNotConfiguredError: it is not set.
    """
    url = os.environ.get("REDIS_URL", "").strip()
    if not url:
        raise RedisNotConfiguredError(f"set REDIS_URL, e.g. {EXAMPLE}")
    return url


def get_redis() -> Redis:
    """Return the process's client, which keeps a pool of connections and is safe to share among threads.

    Raises:
        RedisNotConfiguredError: ``REDIS_URL`` is not set or malformed.
    """
    global _client
    with _mutex:
        if _client is None:
            _client = _connect(redis_url_from_environment())
        return _client


def get_async_redis() -> AsyncRedis:
    """Return a new async client; it belongs to the running event loop, and the caller closes it.

    Raises:
        RedisNotConfiguredError: ``REDIS_URL`` is not set or malformed.
    """
    from redis.asyncio import Redis as AsyncRedis

    url = redis_url_from_environment()
    try:
        client: AsyncRedis = AsyncRedis.from_url(url)
    except ValueError:
        raise _malformed(url) from None
    return client


def close_redis() -> None:
    """Close the process's client; the next :func:`get_redis` makes a new one."""
    global _client
    with _mutex:
        client, _client = _client, None
    if client is not None:
        client.close()


def check_redis() -> str | None:
    """Return None when the configured Redis answers, else a sentence that names the setting."""
    try:
        url = redis_url_from_environment()
        client = _connect(url, timeout=_CHECK_TIMEOUT)
    except RedisNotConfiguredError as error:
        return str(error)
    from redis.exceptions import RedisError

    try:
        client.ping()
    except (RedisError, OSError) as error:
        return f"Redis at {redact(url)} does not answer ({type(error).__name__}); start it, or correct REDIS_URL"
    finally:
        client.close()
    return None


def _connect(url: str, timeout: float | None = None) -> Redis:
    from redis import Redis

    try:
        client: Redis = Redis.from_url(url, socket_connect_timeout=timeout, socket_timeout=timeout)
    except ValueError:
        raise _malformed(url) from None
    return client


def _malformed(url: str) -> RedisNotConfiguredError:
    return RedisNotConfiguredError(f"REDIS_URL ({redact(url)}) is not a Redis URL; write it like {EXAMPLE}")
