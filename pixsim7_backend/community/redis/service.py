"""Answers ``redis.*`` calls of a jail: checks what is asked, puts the plugin's prefix before keys, and asks Redis."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from redis._parsers import _AsyncRESP2Parser
from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from pixsim7_backend.db.urls import DEFAULT_DATA_DIRECTORY
from pixsim7_backend.infrastructure.plugins._jail.broker import (
    BrokerError,
    CallContext,
    Grants,
    JailIdentity,
    ServiceSession,
)
from pixsim7_backend.redis import EXAMPLE, RedisNotConfiguredError, redis_url

from .commands import Checked, CommandError, RedisLimits, check_command
from .users import password_of, prefix_of, user_of

__all__ = ["RedisService"]

logger = logging.getLogger("pixsim7.plugins.redis")


class RedisService:
    """Redis for community plugins.

    Args:
        url: gives the URL of the host's own login; the configured one by default. Without one there is no Redis.
        data_dir: where the passwords of the plugins' users are kept.
        limits: for each jail.
    """

    family = "redis"
    inside: str | None = "pixsim7_backend.community.redis.inside:install"
    permissions: tuple[str, ...] = ("redis:read", "redis:write")

    def __init__(
        self,
        url: Callable[[], str] = redis_url,
        *,
        data_dir: Path = Path(DEFAULT_DATA_DIRECTORY),
        limits: RedisLimits | None = None,
    ) -> None:
        self._url = _required(url)
        self._data_dir = data_dir
        self._limits = limits or RedisLimits()

    def describe(self, jail: JailIdentity, grants: Grants) -> Mapping[str, Any]:
        """Tell whether there is a Redis."""
        try:
            self._url()
        except RedisNotConfiguredError:
            return {"is_configured": False}
        return {"is_configured": True}

    def open(self, jail: JailIdentity, grants: Grants) -> ServiceSession:
        """Return what answers one jail; connects when it is first called."""
        return _Session(self._url, jail.plugin, grants, self._limits, self._data_dir)


class _Session:
    """Redis for one jail process."""

    def __init__(
        self, url: Callable[[], str], plugin: str, grants: Grants, limits: RedisLimits, data_dir: Path
    ) -> None:
        self._url = url
        self._plugin = plugin
        self._grants = grants
        self._limits = limits
        self._data_dir = data_dir
        self._prefix = prefix_of(plugin).encode()
        self._client: Any = None  # the library leaves much of its clients untyped

    async def call(self, method: str, args: Sequence[Any], call: CallContext) -> Any:
        """Answer ``execute(pieces)``: a command as Redis would get it."""
        match method, args:
            case "execute", [list() as pieces]:
                return await self._execute(pieces, call)
        raise BrokerError("UnknownCallError", f"the host knows no 'redis.{method[:40]}' with such arguments")

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _execute(self, pieces: list[Any], call: CallContext) -> Any:
        try:
            command = check_command(pieces, self._limits)
        except CommandError as error:
            raise BrokerError("ResponseError", str(error)) from error
        self._check_granted(command)
        try:
            return await self._ask(command, call)
        except NoPermissionError as error:
            logger.warning("Redis refuses %s to plugin %s: %s", command.name, self._plugin, error)
            raise BrokerError("NoPermissionError", f"Redis does not let this plugin use {command.name} so") from error
        except _TooLargeError as error:
            raise BrokerError("ResponseError", str(error)) from error
        except ResponseError as error:
            raise BrokerError("ResponseError", str(error)[:500]) from error
        except RedisNotConfiguredError as error:
            raise BrokerError("ConnectionError", "the host has no Redis; set REDIS_URL") from error
        except (RedisError, OSError) as error:
            logger.warning("Redis does not answer plugin %s: %s", self._plugin, type(error).__name__)
            raise BrokerError("ConnectionError", "Redis does not answer the host") from error

    def _check_granted(self, command: Checked) -> None:
        wanted = [
            permission
            for permission, is_needed in (("redis:read", command.need.reads), ("redis:write", command.need.writes))
            if is_needed
        ]
        for at in command.keys:
            key = command.pieces[at].decode("ascii")
            for permission in wanted:
                if not self._grants.allows(permission, key):
                    raise BrokerError("NoPermissionError", f"{permission} is not granted for the key {key!r}")

    async def _ask(self, command: Checked, call: CallContext) -> Any:
        pieces = list(command.pieces)
        for at in command.keys:
            pieces[at] = self._prefix + pieces[at]
        client = await self._connected()
        if command.measure:
            count = await client.execute_command(command.measure, *pieces[:1])
            if count > self._limits.items:
                raise BrokerError(
                    "ResponseError", f"that has {count:,} items; read up to {self._limits.items:,} at once"
                )
        reply = await client.execute_command(command.name, *pieces)
        call.count("bytes", sum(map(len, pieces)) + _size(reply))
        return reply

    async def _connected(self) -> Any:
        if self._client is None:
            self._client = await self._log_in()
        return self._client

    async def _log_in(self) -> Redis:
        """Connect as the plugin's user where there is one, as the host where not."""
        pool = self._pool()
        db = int(pool.connection_kwargs.get("db") or 0)
        password = password_of(self._plugin, db, self._data_dir)
        if password is not None:
            pool.connection_kwargs |= {"username": user_of(self._plugin, db), "password": password}
            try:
                await pool.release(await pool.get_connection())
            except AuthenticationError:
                logger.warning(
                    "Redis has no user for plugin %s any more; the host's is used, and checks what is granted."
                    " Run: pixsim7 plugins grants apply",
                    self._plugin,
                )
                pool = self._pool()
        client = Redis.from_pool(pool)
        client.response_callbacks.clear()  # replies go to the jail as they come; its client knows what they mean
        return client

    def _pool(self) -> Any:
        limits = self._limits
        parser = type("_Capped", (_CappedParser,), {"largest": limits.reply})
        pool = BlockingConnectionPool.from_url(
            self._url(),
            max_connections=limits.connections,
            timeout=limits.time,
            socket_timeout=limits.time,
            socket_connect_timeout=limits.time,
            protocol=2,
            parser_class=parser,
        )
        if pool.connection_kwargs["protocol"] != 2 or pool.connection_kwargs.get("decode_responses"):
            raise BrokerError("ConnectionError", "REDIS_URL must not say protocol= or decode_responses=; take them out")
        return pool


def _required(url: Callable[[], str]) -> Callable[[], str]:
    def give() -> str:
        if not (found := url()):
            raise RedisNotConfiguredError(f"set REDIS_URL, e.g. {EXAMPLE}")
        return found

    return give


def _size(reply: Any) -> int:
    if isinstance(reply, list):
        return sum(map(_size, reply))
    return len(reply) if isinstance(reply, (bytes, str)) else 8


class _TooLargeError(RedisError):
    """A reply is larger than may be read; its connection is of no use any more."""


class _CappedParser(_AsyncRESP2Parser):
    """Reads replies up to a size: the rest of a larger one is never taken in."""

    largest = 0
    _taken = 0

    async def read_response(self, disable_decoding: bool = False) -> Any:
        self._taken = 0
        return await super().read_response(disable_decoding)

    async def _read(self, length: int) -> bytes:
        self._take(length)
        return await super()._read(length)

    async def _readline(self) -> bytes:
        line = await super()._readline()
        self._take(len(line))
        return line

    def _take(self, size: int) -> None:
        self._taken += size
        if self._taken > self.largest:
            raise _TooLargeError(f"the reply has more than {self.largest:,} bytes; read less at once")
