"""Rate limits of the backend: counted in Redis where that is configured, by user where one is logged in."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from starlette.types import Scope

from pixsim7_backend.infrastructure.plugins import (
    LimitSettings,
    PluginManager,
    Rate,
    RatesUnavailableError,
    Verdict,
    ports,
)
from pixsim7_backend.infrastructure.plugins.errors import PluginNotFoundError
from pixsim7_backend.redis import new_async_redis
from pixsim7_backend.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

logger = logging.getLogger("pixsim7.rate_limits")

PORT = "token-user"
KEY_PREFIX = "pixsim7:rate:"
_CONNECTIONS = 8
#: Seconds; a Redis that takes longer is as good as away.
_TIMEOUT = 1.0

# The generic cell rate algorithm as in the platform's `MemoryRates`, in microseconds and by the clock of
# Redis. The value is the theoretical arrival time; a clock that was set back does not lock clients out.
_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local span = tonumber(ARGV[1]) * 1000000
local step = span / tonumber(ARGV[2])
local due = tonumber(redis.call('GET', KEYS[1]) or now)
due = math.min(math.max(due, now), now + span)
local ahead = due + step - now
if ahead > span + 0.5 then
  return {0, 0, math.ceil(ahead - span)}
end
redis.call('SET', KEYS[1], string.format('%.3f', due + step), 'PX', math.ceil(ahead / 1000))
local remaining = math.floor((span - ahead + 0.5) / step)
if remaining > 0 then
  return {1, remaining, math.ceil(ahead)}
end
return {1, 0, math.ceil(ahead + step - span)}
"""


class RedisRates:
    """Counts requests in Redis, so that all workers share the counts; one script, so that nothing comes between."""

    def __init__(self, client: Redis) -> None:
        from redis.exceptions import RedisError

        self._script = client.register_script(_SCRIPT)
        self._failures = (RedisError, OSError, TimeoutError)

    async def take(self, plugin: str, client: str, rate: Rate) -> Verdict:
        """Count one request if it is within the rate.

        Raises:
            RatesUnavailableError: Redis does not answer in a second, or refuses.
        """
        try:
            async with asyncio.timeout(_TIMEOUT):
                is_allowed, remaining, microseconds = await self._script(
                    keys=[f"{KEY_PREFIX}{plugin}:{rate}:{client}"], args=[rate.period, rate.count]
                )
        except self._failures as error:
            raise RatesUnavailableError(f"Redis does not answer ({type(error).__name__})") from error
        return Verdict(bool(is_allowed), remaining, microseconds / 1e6)


class TokenUser(Protocol):
    """What the auth plugin provides under the name ``token-user``."""

    def __call__(self, scope: Scope) -> int | None:
        """Return the id of the user whose token the request presents, None without a valid one; it is fast."""


def find_client(scope: Scope) -> str | None:
    """Return the logged-in user of a request; None where there is none, so that the address counts.

    Only a token that is really ours names a user: what a client claims would give it any number of limits.
    """
    token_user: TokenUser | None = ports.find(PORT)
    if token_user is None:
        return None
    try:
        user = token_user(scope)
    except Exception:  # the port is a plugin's code: what breaks in it must not take down the others
        logger.exception("The auth plugin failed to tell who is asking; the address counts")
        return None
    return None if user is None else f"user:{user}"


def warn_of_unknown(settings: Settings, manager: PluginManager) -> None:
    """Say in the log which limits are set for plugins that are not there."""
    for name, plugin_ids in (
        ("RATE_LIMITS", settings.rate_limits),
        ("CONCURRENCY_LIMITS", settings.concurrency_limits),
        ("JAIL_LIMITS", settings.jail_limits.plugins),
    ):
        for plugin_id in plugin_ids:
            try:
                manager.get(plugin_id)
            except PluginNotFoundError as error:
                logger.warning("%s: %s", name, error)


@asynccontextmanager
async def limits_of(settings: Settings) -> AsyncIterator[LimitSettings]:
    """Return what the settings say of limits; connections to Redis are closed in the end."""
    client = None
    if settings.redis_url.get_secret_value():
        client = new_async_redis(connections=_CONNECTIONS, timeout=_TIMEOUT)
    try:
        yield LimitSettings(
            rates=settings.rate_limits,
            community_rate=settings.community_rate_limit,
            concurrency=settings.concurrency_limits,
            community_concurrency=settings.community_concurrency_limit,
            shared=RedisRates(client) if client is not None else None,
            find_client=find_client,
        )
    finally:
        if client is not None:
            await client.aclose()
