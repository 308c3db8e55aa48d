"""Redis in a jail: the client of every plugin, whose commands are calls to the host instead of bytes on a socket."""

from __future__ import annotations

from typing import Any, NoReturn

import redis.asyncio
from fastapi import FastAPI
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from pixsim7_backend.infrastructure.plugins._jail.inside.services import BrokerCallError, acall, call
from pixsim7_backend.infrastructure.plugins._jail.inside.services import ShareUsedUpError as CallShareUsedUpError
from pixsim7_backend.infrastructure.plugins.errors import ShareUsedUpError as PluginShareUsedUpError
from pixsim7_backend.redis import EXAMPLE, RedisNotConfiguredError, use_clients

__all__ = ["AsyncJailedRedis", "JailedRedis", "install"]

_ERRORS: dict[str, type[RedisError]] = {
    "ResponseError": ResponseError,
    "NoPermissionError": NoPermissionError,
    "NotGrantedError": NoPermissionError,
    "ConnectionError": RedisConnectionError,
}


def install(app: FastAPI) -> None:
    """Let ``get_redis`` and ``new_async_redis`` of the backend give clients that ask the host."""
    if app.state.services["redis"]["is_configured"]:
        use_clients(JailedRedis, AsyncJailedRedis)
    else:
        use_clients(_refuse, _refuse)


def _refuse() -> NoReturn:
    raise RedisNotConfiguredError(f"set REDIS_URL, e.g. {EXAMPLE}")


def _unavailable(*_: Any, **__: Any) -> NoReturn:
    raise RedisError("a confined plugin sends one command after the other: no pipelines, subscriptions, scripts")


class JailedRedis(redis.Redis):
    """The process's client. Keys are the plugin's own: ``get("hits")`` reads ``pixsim7:plugin:<id>:hits``."""

    pipeline = pubsub = monitor = transaction = lock = register_script = client = _unavailable

    def __init__(self) -> None:
        super().__init__(protocol=2)  # of the replies; it never connects

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Let the host run a command."""
        try:
            reply = call("redis.execute", _pieces(self, args))
        except BrokerCallError as error:
            raise _error(error) from None
        return _parsed(self, args[0], reply, options)


class AsyncJailedRedis(redis.asyncio.Redis):
    """Async twin of :class:`JailedRedis`."""

    pipeline = pubsub = monitor = transaction = lock = register_script = client = _unavailable

    def __init__(self) -> None:
        super().__init__(protocol=2)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Let the host run a command."""
        try:
            reply = await acall("redis.execute", _pieces(self, args))
        except BrokerCallError as error:
            raise _error(error) from None
        return _parsed(self, args[0], reply, options)


def _pieces(client: Any, args: tuple[Any, ...]) -> list[bytes]:
    encoder = client.connection_pool.get_encoder()
    return [bytes(encoder.encode(each)) for each in args]


def _parsed(client: Any, name: str, reply: Any, options: dict[str, Any]) -> Any:
    """Return a reply as the client returns it, which depends on the command."""
    options.pop("keys", None)
    callback = client.response_callbacks.get(name)
    return reply if callback is None else callback(reply, **options)


class ShareUsedUpError(PluginShareUsedUpError, RedisError):
    """The plugin has used its share of the minute, as Redis's client tells it."""


def _error(error: BrokerCallError) -> RedisError:
    if isinstance(error, CallShareUsedUpError):
        return ShareUsedUpError(**error.fields)
    return _ERRORS.get(error.kind, RedisError)(str(error))
