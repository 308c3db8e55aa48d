"""Random plugins that overlap, published, replaced and removed in any order, answer as hard-coded ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote

import anyio
from fastapi import APIRouter, FastAPI, Request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, NoMatchFound, Route
from starlette.websockets import WebSocket

from pixsim7_backend.infrastructure.plugins._dispatch import PluginRoute, find_conflicts
from pixsim7_backend.infrastructure.plugins._ledger.ownership import AppKey

from .twins import PluginSpec, Twins, mount_of

Kind = Literal["api", "plain", "websocket", "mount"]
SEGMENTS = ["a", "b", "{x}", "{y:int}", "v-{z}", "{w:float}"]
NAMES = ["n0", "n1", "n2"]


@dataclass(frozen=True)
class RandomRoute:
    kind: Kind
    path: str
    method: str
    name: str
    nested: bool


@dataclass(frozen=True)
class RandomPlugin:
    prefix: str
    router_prefix: str
    routes: tuple[RandomRoute, ...]


@st.composite
def paths(draw: st.DrawFn) -> str:
    segments = draw(st.lists(st.sampled_from(SEGMENTS), max_size=3, unique=True))
    tail = draw(st.sampled_from(["", "", "", "/", "/{p:path}"]))
    return "/" + "/".join(segments) + (tail if segments else tail.removeprefix("/"))


routes = st.builds(
    RandomRoute,
    kind=st.sampled_from(["api", "api", "api", "plain", "websocket", "mount"]),
    path=paths(),
    method=st.sampled_from(["GET", "GET", "POST", "HEAD"]),
    name=st.sampled_from(NAMES),
    nested=st.booleans(),
)
plugins = st.builds(
    RandomPlugin,
    prefix=st.sampled_from(["", "/api", "/a"]),
    router_prefix=st.sampled_from(["", "/b"]),
    routes=st.lists(routes, min_size=1, max_size=5).map(tuple),
)
steps = st.lists(
    st.dictionaries(st.sampled_from(["one", "two", "three", "four"]), plugins, max_size=4), min_size=1, max_size=3
)
requests = st.lists(
    st.builds(
        lambda start, parts, end: start + "".join("/" + part for part in parts) + end,
        st.sampled_from(["", "/api", "/a", "/api/b", "/b"]),
        st.lists(st.sampled_from(["a", "b", "1", "1.5", "v-1", "v-", ""]), max_size=3),
        st.sampled_from(["", "", "", "/", "\n"]),
    ),
    min_size=4,
    max_size=10,
)


def router_of(plugin: str, random: RandomPlugin) -> APIRouter:
    """Build the router of a random plugin; half of its routes live in a router inside it."""
    router, inner = APIRouter(prefix=random.router_prefix), APIRouter()
    for number, route in enumerate(random.routes):
        add_route(inner if route.nested else router, route, f"{plugin}_{number}")
    if any(route.nested for route in random.routes):
        router.include_router(inner, prefix="/in")
    return router


def add_route(router: APIRouter, route: RandomRoute, identity: str) -> None:
    async def api(request: Request) -> dict[str, Any]:
        return {"by": identity, "params": {key: str(value) for key, value in request.path_params.items()}}

    async def plain(request: StarletteRequest) -> Response:
        params = {key: str(value) for key, value in request.path_params.items()}
        return JSONResponse({"by": identity, "params": params, "root": request.scope.get("root_path")})

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json({"by": identity, "params": {k: str(v) for k, v in websocket.path_params.items()}})

    match route.kind:
        case "api":
            router.add_api_route(
                route.path, api, methods=[route.method], name=route.name, operation_id=identity, tags=[identity]
            )
        case "plain":
            router.add_route(route.path, plain, methods=[route.method], name=route.name)
        case "websocket":
            router.add_api_websocket_route(route.path, socket, name=route.name)
        case "mount":
            path = route.path.removesuffix("{p:path}").rstrip("/") or "/m"
            router.routes.append(Mount(path, routes=[Route("/a", plain, name="deep")], name=route.name))


def build(step: Mapping[str, RandomPlugin]) -> dict[str, PluginSpec]:
    made = {plugin: router_of(plugin, random) for plugin, random in step.items()}
    return {
        plugin: PluginSpec(plugin, lambda router=made[plugin]: [router], step[plugin].prefix)  # type: ignore[misc]
        for plugin in step
    }


def url_of(app: FastAPI, name: str, params: Mapping[str, Any]) -> str | None:
    try:
        return str(app.url_path_for(name, **params))
    except NoMatchFound:
        return None


async def compare(twins: Twins, urls: Sequence[str]) -> None:
    """Compare requests, WebSockets, names and documents."""
    for url in urls:
        for method in ("GET", "POST"):
            await twins.ask(method, quote(url) or "/")
        await twins.talk(quote(url) or "/")
    for name in (*NAMES, "n0:deep", "n1:deep"):
        for params in ({}, {"x": "1"}, {"y": 2}, {"x": "1", "y": 2}, {"p": "q"}):
            assert url_of(twins.platform, name, params) == url_of(twins.hard, name, params)
    twins.compare_openapi()


async def follow(history: list[dict[str, RandomPlugin]], urls: Sequence[str]) -> None:
    """Publish one step after the other on one app; compare each with a hard-coded app made for it."""
    platform = FastAPI()
    route = PluginRoute.install(platform, AppKey())
    for generation, step in enumerate(history):
        specs = build(step)
        mounts = {plugin: mount_of(platform, spec, generation) for plugin, spec in specs.items()}
        for refused in {error.plugin for error in find_conflicts(platform, list(mounts.values()))}:
            del mounts[refused]
        # A generation that did not change keeps its mount, as it would in a running app.
        route.publish(mounts)
        hard = FastAPI()
        for plugin in mounts:
            hard.include_router(specs[plugin].routers()[0], prefix=specs[plugin].prefix)
        await compare(Twins(hard, platform, route), urls)


@given(history=steps, urls=requests)
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
def test_random_plugins(history: list[dict[str, RandomPlugin]], urls: list[str]) -> None:
    """Whatever is published, every answer, name and document is that of the hard-coded app."""
    anyio.run(follow, history, urls)
