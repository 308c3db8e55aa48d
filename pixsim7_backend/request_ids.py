"""One id per request: taken from the client or made here; in the answer, in every log line, in every problem."""

from __future__ import annotations

import re
import uuid
from contextvars import ContextVar

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "X-Request-ID"
_SAFE = re.compile(r"[A-Za-z0-9._-]{1,128}")

current_request_id: ContextVar[str | None] = ContextVar("pixsim7_request_id", default=None)


class RequestIds:
    """ASGI middleware that names every request and WebSocket.

    A client's ``X-Request-ID`` is kept when it consists of 1 to 128 letters, digits, dots, hyphens
    and underscores (it ends up in logs); otherwise a random one takes its place.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        request_id = _chosen(Headers(scope=scope).get(HEADER))

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        token = current_request_id.set(request_id)
        try:
            await self.app(scope, receive, send_with_id)
        finally:
            current_request_id.reset(token)


def _chosen(offered: str | None) -> str:
    if offered and _SAFE.fullmatch(offered):
        return offered
    return uuid.uuid4().hex
