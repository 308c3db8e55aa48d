"""A start-up that fails for a reason that people can mend ends with that reason instead of a traceback."""

from __future__ import annotations

import sys

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pixsim7_backend.db import DataLayerError
from pixsim7_backend.infrastructure.plugins.errors import PluginError, PluginStartupError
from pixsim7_backend.settings import SettingsError


class PlainStartupErrors:
    """ASGI middleware around the lifespan: the server is told the sentence and logs it; bugs keep their traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return

        async def send_plainly(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed":
                message = {**message, "message": _sentence(sys.exception()) or message.get("message", "")}
            await send(message)

        await self.app(scope, receive, send_plainly)


def _sentence(error: BaseException | None) -> str | None:
    """Return what to tell people, None where the traceback is needed."""
    if isinstance(error, PluginStartupError):  # each problem has already been logged in a line of its own
        return str(error).splitlines()[0].rstrip(":") + "; the lines above say why"
    if isinstance(error, (PluginError, SettingsError, DataLayerError)):
        return "start-up aborted: " + "; ".join(str(error).splitlines())
    return None
