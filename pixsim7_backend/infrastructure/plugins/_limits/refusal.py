"""What a client is told when it is refused, and how it learns of its limit before that."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from enum import StrEnum
from math import ceil

from starlette.exceptions import HTTPException, WebSocketException
from starlette.types import Message, Scope, Send

from .rate import Rate, Verdict

TRY_AGAIN_LATER = 1013
"""The close code for a WebSocket that is refused for now (IANA registry of RFC 6455)."""
_DENIAL = "websocket.http.response"
_HEADED = ("http.response.start", "websocket.accept", "websocket.http.response.start")


class Limit(StrEnum):
    """The limits that a request may be refused by."""

    RATE = "rate"
    CONCURRENCY = "concurrency"


class RefusedError(HTTPException):
    """A request that does not reach its plugin; the host answers it like any other HTTP error."""

    def __init__(self, limit: Limit, status: int, detail: str, headers: Mapping[str, str]) -> None:
        super().__init__(status, detail, headers)
        self.limit = limit

    def answer_to(self, scope: Scope) -> Exception:
        """Return what to raise: where a server cannot answer a handshake over HTTP, it closes the WebSocket."""
        if scope["type"] == "websocket" and _DENIAL not in (scope.get("extensions") or {}):
            return WebSocketException(TRY_AGAIN_LATER, "try again later")
        return self


class RateFields:
    """The header fields ``RateLimit-Policy`` and ``RateLimit`` of one plugin's rate.

    As in "RateLimit header fields for HTTP", draft-ietf-httpapi-ratelimit-headers-11 (May 2026): the policy
    is named for the plugin, ``q`` is its quota and ``w`` its window in seconds; ``r`` is what is left of the
    quota and ``t`` the seconds until there is more: where nothing is left until the next request is let
    through, the same as ``Retry-After``, else until the whole quota is there again.
    """

    def __init__(self, plugin: str, rate: Rate) -> None:
        self._plugin = plugin
        self._rate = rate
        self._policy = f'"{plugin}";q={rate.count};w={rate.period}'
        self._policy_field = (b"ratelimit-policy", self._policy.encode())

    def refusal(self, verdict: Verdict) -> RefusedError:
        """Return the answer to a request beyond the rate."""
        seconds = max(1, ceil(verdict.seconds))
        return RefusedError(
            Limit.RATE,
            429,
            f"plugin {self._plugin!r} answers {self._rate} to one client; try again in {seconds} s",
            {"Retry-After": str(seconds), "RateLimit-Policy": self._policy, "RateLimit": self._state(0, seconds)},
        )

    def announced_by(self, send: Send, verdict: Verdict) -> Send:
        """Return ``send`` with the fields added to the head of the answer."""
        state = self._state(verdict.remaining, max(1, ceil(verdict.seconds)))
        fields = (self._policy_field, (b"ratelimit", state.encode()))

        def announce(message: Message) -> Awaitable[None]:
            if message["type"] in _HEADED:
                message = {**message, "headers": [*message.get("headers", ()), *fields]}
            return send(message)

        return announce

    def _state(self, remaining: int, seconds: int) -> str:
        return f'"{self._plugin}";r={remaining};t={seconds}'


def no_room(plugin: str, room: int) -> RefusedError:
    """Return the answer to a request that comes while the plugin serves as many as it may."""
    detail = f"plugin {plugin!r} serves {room} requests at once, and does now; try again in 1 s"
    return RefusedError(Limit.CONCURRENCY, 503, detail, {"Retry-After": "1"})
