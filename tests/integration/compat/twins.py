"""The same app twice: routers hard-coded with ``include_router``, and the same routers as plugins."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from fastapi import APIRouter, FastAPI
from starlette.types import Message

from pixsim7_backend.infrastructure.plugins._dispatch import PluginMount, PluginRoute, build_mount
from pixsim7_backend.infrastructure.plugins._ledger.ownership import AppKey, Owner

Json = dict[str, Any]
MakeRouters = Callable[[], Sequence[APIRouter]]
MakeHost = Callable[[], FastAPI]


@dataclass(frozen=True)
class PluginSpec:
    """A plugin to be: how to make its routers, and what its manifest would say."""

    id: str
    routers: MakeRouters
    prefix: str = "/api"
    tags: tuple[str, ...] = ()


@dataclass
class Twins:
    """A hard-coded app and one of plugins, made from the same parts, that must answer alike."""

    hard: FastAPI
    platform: FastAPI
    route: PluginRoute
    mounts: dict[str, PluginMount] = field(default_factory=dict)

    async def ask(self, method: str, url: str, **options: Any) -> httpx.Response:
        """Send one request to both, check that they answer alike, return the platform's answer."""
        hard = await request(self.hard, method, url, **options)
        ours = await request(self.platform, method, url, **options)
        assert comparable(ours) == comparable(hard), f"{method} {url}"
        return ours

    async def talk(self, url: str, *incoming: str, **scope: Any) -> list[Message]:
        """Open one WebSocket in both, check that they say the same, return what the platform said."""
        hard = await converse(self.hard, url, incoming, scope)
        ours = await converse(self.platform, url, incoming, scope)
        assert ours == hard, url
        return ours

    def compare_openapi(self) -> Json:
        """Check that both documents say the same (but for qualified names), return the platform's."""
        document = self.platform.openapi()
        assert plain(document) == plain(self.hard.openapi())
        return document


def make_twins(*plugins: PluginSpec, host: MakeHost = FastAPI) -> Twins:
    """Build both apps; every router is made twice, so that they share nothing."""
    hard = host()
    for plugin in plugins:
        for router in plugin.routers():
            hard.include_router(router, prefix=plugin.prefix, tags=list(plugin.tags))
    platform = host()
    twins = Twins(hard, platform, PluginRoute.install(platform, AppKey()))
    twins.mounts = {plugin.id: mount_of(platform, plugin) for plugin in plugins}
    twins.route.publish(twins.mounts)
    return twins


def mount_of(app: FastAPI, plugin: PluginSpec, generation: int = 1, **options: Any) -> PluginMount:
    """Build the mount of a plugin."""
    owner = Owner(AppKey(), plugin.id, generation, "", "")
    return build_mount(app, owner=owner, routers=plugin.routers(), prefix=plugin.prefix, tags=plugin.tags, **options)


def one(router: APIRouter) -> Callable[[], Sequence[APIRouter]]:
    """Use the same router object in both apps."""
    return lambda: [router]


# --- talking to an app in process -------------------------------------------------------------------


async def request(app: FastAPI, method: str, url: str, **options: Any) -> httpx.Response:
    """Send one request to ``app`` without a server; an unhandled exception is its 500."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False, root_path=options.pop("root_path", ""))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, url, **options)


async def converse(app: FastAPI, url: str, incoming: Sequence[str], scope: Mapping[str, Any]) -> list[Message]:
    """Open a WebSocket, send ``incoming``, hang up; return what the app sent."""
    parts = httpx.URL("ws://test" + url)
    messages: list[Message] = [{"type": "websocket.connect"}]
    messages += [{"type": "websocket.receive", "text": text} for text in incoming]
    messages.append({"type": "websocket.disconnect", "code": 1000})
    sent: list[Message] = []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    full = {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "scheme": "ws",
        "path": parts.path,
        "raw_path": parts.raw_path,
        "query_string": parts.query,
        "root_path": "",
        "headers": [(b"host", b"test")],
        "client": ("testclient", 1),
        "server": ("test", 80),
        "subprotocols": [],
        **scope,
    }
    await app(full, receive, send)
    return sent


def comparable(response: httpx.Response) -> tuple[Any, ...]:
    """Return what must be equal: status, headers (sets as sets) and body."""
    headers = {
        name: sorted(value.split(", ")) if name == "allow" else value
        for name, value in response.headers.multi_items()
        if name not in {"etag", "last-modified"}
    }
    return response.status_code, headers, response.content


# --- comparing documents ----------------------------------------------------------------------------


def plain(document: Json) -> Json:
    """Bring a document into the form in which both must be equal: schema names without their prefix."""
    text = re.sub(r'"(#/components/schemas/)?[a-z0-9_]+__([A-Z])', r'"\1\2', json.dumps(document))
    result: Json = json.loads(text)
    for item in result["paths"].values():
        for operation in item.values():
            if "tags" in operation:
                operation["tags"] = list(dict.fromkeys(operation["tags"]))
    return result
