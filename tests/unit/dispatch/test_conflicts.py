"""Two that claim the same method and path are named before anything is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Host, Mount, Router
from starlette.websockets import WebSocket

from pixsim7_backend.infrastructure.plugins._dispatch import PluginMount, PluginRoute, find_conflicts
from pixsim7_backend.infrastructure.plugins._ledger.ownership import AppKey
from tests.integration.compat.twins import PluginSpec, mount_of


def endpoint() -> None: ...


def other_endpoint() -> None: ...


async def plain(request: Request) -> Response:
    return Response()


async def socket(websocket: WebSocket) -> None: ...


def mount(app: FastAPI, plugin: str, *routes: tuple[str, str]) -> PluginMount:
    router = APIRouter()
    for method, path in routes:
        if method == "WEBSOCKET":
            router.add_api_websocket_route(path, socket)
        elif method == "MOUNT":
            router.routes.append(Mount(path, Router()))
        elif method == "HOST":
            router.routes.append(Host(path, Router()))
        elif method == "PLAIN":
            router.add_route(path, plain)
        else:
            router.add_api_route(path, endpoint, methods=[method])
    return mount_of(app, PluginSpec(plugin, lambda: [router]))


def found(app: FastAPI, *mounts: PluginMount) -> list[tuple[str, str, str, str]]:
    errors = find_conflicts(app, mounts)
    return [tuple(error.fields[name] for name in ("plugin", "method", "path", "owner")) for error in errors]


def test_same_shape_twice() -> None:
    """The later plugin fails, whatever the parameters are called; the text names both endpoints."""
    app = FastAPI()
    one, two = mount(app, "one", ("GET", "/x/{a}")), mount(app, "two", ("GET", "/x/{b}"), ("PUT", "/x/{b}"))
    (error,) = find_conflicts(app, [one, two])
    place = f"{__name__}.endpoint, {__file__}:{endpoint.__code__.co_firstlineno}"
    assert str(error) == (
        f"GET /api/x/{{b}} of plugin 'two' ({place}) is already served by plugin 'one' "
        f"({place}); change one of the two paths, or disable one of the two"
    )


def test_overlap_is_no_conflict() -> None:
    """Paths that merely overlap, other methods and other convertors are no conflict."""
    app = FastAPI()
    one = mount(app, "one", ("GET", "/x/{a}"), ("WEBSOCKET", "/w"))
    two = mount(app, "two", ("GET", "/x/b"), ("POST", "/x/{a}"), ("GET", "/x/{a:int}"), ("GET", "/w"))
    three = mount(app, "three", ("GET", "/x/{a}/"), ("MOUNT", "/x"), ("GET", "/x"))
    assert found(app, one, two, three) == []


def test_within_one_plugin() -> None:
    """A plugin may repeat itself, as in FastAPI."""
    app = FastAPI()
    assert found(app, mount(app, "one", ("GET", "/x"), ("GET", "/x"))) == []


def test_claims_of_a_failed_plugin_are_free() -> None:
    """A plugin that failed for a conflict holds nothing against those after it."""
    app = FastAPI()
    mounts = [
        mount(app, "one", ("GET", "/x")),
        mount(app, "two", ("GET", "/x"), ("GET", "/y")),
        mount(app, "three", ("GET", "/y")),
    ]
    assert found(app, *mounts) == [("two", "GET", "/api/x", "plugin 'one'")]


def test_host_wins() -> None:
    """An explicit route of the host wins, also inside an included router; its catch-all does not."""
    app = FastAPI()
    included = APIRouter()
    included.add_api_route("/y", other_endpoint)
    app.include_router(included, prefix="/api")
    app.add_api_route("/api/x", endpoint)
    app.add_api_route("/{rest:path}", endpoint)
    PluginRoute.install(app, AppKey())
    mounts = [mount(app, "one", ("GET", "/x"), ("POST", "/x"), ("GET", "/y")), mount(app, "two", ("GET", "/z"))]
    assert found(app, *mounts) == [
        ("one", "GET", "/api/x", "the host app"),
        ("one", "GET", "/api/y", "the host app"),
    ]


def test_head_websockets_mounts_hosts_and_any_method() -> None:
    """HEAD comes with a plain GET route only; WebSockets, mounts and hosts conflict among themselves."""
    app = FastAPI()
    one = mount(
        app, "one", ("PLAIN", "/p"), ("WEBSOCKET", "/w"), ("MOUNT", "/m/"), ("HOST", "a.example.org"), ("GET", "/g")
    )
    assert found(app, one, mount(app, "two", ("HEAD", "/p"), ("HEAD", "/g"))) == [
        ("two", "HEAD", "/api/p", "plugin 'one'")
    ]
    two = mount(app, "two", ("WEBSOCKET", "/w"), ("MOUNT", "/m"), ("HOST", "A.example.org"))
    assert [method for _, method, _, _ in found(app, one, two)] == ["WEBSOCKET", "MOUNT", "HOST"]

    class Endpoint:
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    router = APIRouter()
    router.add_route("/g", Endpoint())  # type: ignore[arg-type]
    takes_all = mount_of(app, PluginSpec("all", lambda: [router]))
    assert found(app, one, takes_all)[0][:2] == ("all", "*")
    assert found(app, takes_all, one)[0][:2] == ("one", "GET")


def test_frontends(variant: str, tmp_path: Path) -> None:
    """One path has one frontend (the public variant cannot see them)."""
    app = FastAPI()
    router = APIRouter()
    router.frontend("/ui", directory=tmp_path, check_dir=False)
    mounts = [mount_of(app, PluginSpec(name, lambda: [router], "")) for name in ("one", "two")]
    expected = [("two", "FRONTEND", "/ui", "plugin 'one'")] if variant == "fast" else []
    assert found(app, *mounts) == expected
    app.frontend("/ui", directory=tmp_path, check_dir=False)
    assert len(found(app, *mounts)) == (2 if variant == "fast" else 0)
