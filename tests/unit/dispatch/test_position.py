"""Our route stands after the host's explicit routes and before what catches all."""

from __future__ import annotations

import pytest
from fastapi import APIRouter, FastAPI
from starlette.responses import PlainTextResponse
from starlette.routing import Mount

from pixsim7_backend.infrastructure.plugins._dispatch import PluginMount, PluginRoute
from pixsim7_backend.infrastructure.plugins._dispatch.position import is_catch_all
from tests.integration.compat.twins import PluginSpec, mount_of, request

pytestmark = pytest.mark.anyio


def greeting(app: FastAPI) -> dict[str, PluginMount]:
    router = APIRouter()
    router.add_api_route("/hello/{name}", lambda name: f"plugin {name}")
    return {"greeting": mount_of(app, PluginSpec("greeting", lambda: [router]))}


async def say(app: FastAPI, path: str = "/api/hello/x") -> str:
    return (await request(app, "GET", path)).text.strip('"')


@pytest.mark.parametrize("kind", ["mount", "empty mount", "route", "included", "tenant"])
async def test_before_a_catch_all(kind: str) -> None:
    """Mounts and routes for everything leave the plugins' paths to the plugins."""
    app = FastAPI()
    everything = PlainTextResponse("everything")
    router = APIRouter()
    router.add_api_route("/{rest:path}", lambda: "everything")
    match kind:
        case "mount":
            app.mount("/", everything)
        case "empty mount":
            app.mount("", everything)
        case "route":
            app.add_api_route("/{rest:path}", lambda: "everything")
        case "included":
            app.include_router(router)
        case _:
            app.mount("/{tenant}", everything)
    route = PluginRoute.install(app)
    route.publish(greeting(app))
    assert await say(app) == "plugin x"
    assert await say(app, "/other/x") == "everything"


async def test_host_routes_win_even_when_added_later() -> None:
    """What the host adds later is put before the plugins with the next publish, the catch-all stays last."""
    app = FastAPI()
    route = PluginRoute.install(app)
    mounts = greeting(app)
    route.publish(mounts)
    app.add_api_route("/api/hello/host", lambda: "host")
    app.mount("/", PlainTextResponse("everything"))
    assert await say(app, "/api/hello/host") == "plugin host"
    route.publish({**mounts})
    assert await say(app, "/api/hello/host") == "host"
    assert await say(app) == "plugin x"
    assert await say(app, "/nowhere") == "everything"


async def test_an_app_without_routes_gets_the_plugins() -> None:
    """Neither documents nor routes of its own: there is nothing to stand beside, and the plugins are served."""
    app = FastAPI(openapi_url=None)
    assert not app.router.routes
    PluginRoute.install(app).publish(greeting(app))
    assert await say(app) == "plugin x"


async def test_install_is_idempotent_and_uninstall_complete() -> None:
    """A second install returns the same route; uninstalling leaves the app as it was."""
    app = FastAPI()
    twin = app.router.routes[0]
    before, stack = list(app.router.routes), app.router.middleware_stack
    route = PluginRoute.install(app)
    assert PluginRoute.install(app) is route
    route.publish(greeting(app))
    route.uninstall()
    assert all(one is other for one, other in zip(app.router.routes, before, strict=True))
    assert app.router.middleware_stack == stack
    assert app.router.routes[0] is twin
    assert (await request(app, "GET", "/api/hello/x")).status_code == 404


def test_what_catches_all() -> None:
    """Only routes that answer for every path count."""
    app = PlainTextResponse("")
    assert is_catch_all(Mount("/", app))
    assert not is_catch_all(Mount("/static", app))
    router = APIRouter()
    router.add_api_route("/files/{rest:path}", lambda rest: rest)
    router.add_api_route("/{one}", lambda one: one)
    assert not any(is_catch_all(route) for route in router.routes)
