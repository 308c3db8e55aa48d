"""Runs a plugin through its whole life, before there is a jail: what that takes once, no jail takes again."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from starlette.types import Message, Scope

from pixsim7_backend.infrastructure.plugins._jail import sample
from pixsim7_backend.infrastructure.plugins._jail.spec import JailSpec

from .plugin import PluginInJail

__all__ = ["rehearse"]

_PACKAGE = "pixsim7_rehearsal.sample"
_REQUESTS = (
    ("POST", "/api/v1/sample/items/1", {"name": "first"}),
    ("POST", "/api/v1/sample/items/x", {"size": "none"}),
    ("GET", "/api/v1/sample/plain", None),
    ("GET", "/api/v1/sample/things/2", None),
    ("GET", "/api/v1/sample/things", None),
    ("GET", "/api/v1/sample/nowhere", None),
)


def rehearse() -> None:
    """Load the sample plugin, let it answer, and let go of it; no thread remains."""
    spec = JailSpec(plugin="sample", folder="sample", path=str(Path(sample.__path__[0])), package=_PACKAGE)
    asyncio.run(_live(PluginInJail(spec)))
    for name in [each for each in sys.modules if each.partition(".")[0] == _PACKAGE.partition(".")[0]]:
        del sys.modules[name]


async def _live(plugin: PluginInJail) -> None:
    await plugin.load()
    await plugin.load({"most": 5})
    await plugin.enable()
    for settings in ({"most": 7, "key": "secret"}, {"most": 0, "other": 1}):
        await plugin.validate(settings)
    await plugin.configure({"most": 6, "key": "secret"})
    for method, path, body in _REQUESTS:
        await _ask(plugin, method, path, body)
    await plugin.disable()


async def _ask(plugin: PluginInJail, method: str, path: str, body: Any) -> None:
    scope: Scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"most=5", "root_path": "", "client": None,
        "server": None, "headers": [(b"content-type", b"application/json"), (b"accept", b"*/*")], "state": {},
    }  # fmt: skip

    async def receive() -> Message:
        return {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}

    async def send(_message: Message) -> None:
        return None

    await plugin.app(scope, receive, send)
