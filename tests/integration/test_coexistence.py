"""Hard-coded routers become plugins one by one, in front of a catch-all mount; the API never changes."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.staticfiles import StaticFiles

from pixsim7_backend.infrastructure.plugins import PluginState, init_plugin_manager
from tests.integration.guide import block
from tests.integration.guide.site import BODY, stealth_manifest

pytestmark = pytest.mark.anyio

#: Tag → the router module as it was before the migration.
MODULES = {
    "game-stealth": block("Before (api/v1/game_stealth.py)").replace("# ...", BODY),
    "items": """
from fastapi import APIRouter, Depends, Header, HTTPException
from pydantic import BaseModel, Field

class Item(BaseModel):
    name: str
    price: float = Field(gt=0)

def get_locale(accept_language: str = Header(default="en")):
    yield accept_language

router = APIRouter(prefix="/items", tags=["items"])
stored = {1: Item(name="sword", price=10)}

@router.get("/")
def list_items(limit: int = 10) -> list[Item]:
    return list(stored.values())[:limit]

@router.get("/{item_id}", responses={404: {"description": "no such item"}})
def read_item(item_id: int, locale: str = Depends(get_locale)) -> Item:
    if item_id not in stored:
        raise HTTPException(404, f"no item {item_id} in {locale}")
    return stored[item_id]

@router.post("/", status_code=201)
def check_item(item: Item) -> Item:
    return item
""",
    "search": """
from fastapi import APIRouter

class Item(str):
    pass

router = APIRouter(tags=["search"])

@router.get("/search/{words:path}")
async def search(words: str, page: int = 1):
    return {"words": words.split("/"), "page": page}

@router.put("/items/{item_id}/tags")
async def tag_item(item_id: int, tags: list[str]):
    return {"item": item_id, "tags": tags}
""",
    "users": """
from fastapi import APIRouter
from fastapi.responses import StreamingResponse

router = APIRouter(prefix="/users")

@router.get("/me")
async def me():
    return {"name": "me"}

@router.get("/export")
async def export():
    async def lines():
        yield "a\\n"
        yield "b\\n"
    return StreamingResponse(lines(), media_type="text/plain")
""",
}
HEADER = """\
from pixsim7_backend.infrastructure.plugins.types import PluginManifest

manifest = PluginManifest(id="{id}", name="{id}", version="1.0.0", description="Was a router module")
"""
REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/", {}),
    ("GET", "/style.css", {}),
    ("GET", "/missing.css", {}),
    ("GET", "/api/v1/health", {}),
    ("GET", "/api/v1/nothing", {}),
    ("POST", "/api/v1/game/stealth/pickpocket?req=npc", {}),
    ("POST", "/api/v1/game/stealth/pickpocket", {}),
    ("GET", "/api/v1/game/stealth/pickpocket", {}),
    ("GET", "/api/v1/items/", {}),
    ("GET", "/api/v1/items", {}),
    ("GET", "/api/v1/items/?limit=0", {}),
    ("GET", "/api/v1/items/?limit=many", {}),
    ("GET", "/api/v1/items/1", {}),
    ("GET", "/api/v1/items/2", {"headers": {"accept-language": "de"}}),
    ("GET", "/api/v1/items/two", {}),
    ("HEAD", "/api/v1/items/1", {}),
    ("DELETE", "/api/v1/items/1", {}),
    ("POST", "/api/v1/items/", {"json": {"name": "bow", "price": 3}}),
    ("POST", "/api/v1/items/", {"json": {"name": "bow", "price": -3}}),
    ("POST", "/api/v1/items/", {"content": b"{", "headers": {"content-type": "application/json"}}),
    ("PUT", "/api/v1/items/1/tags", {"json": ["a", "b"]}),
    ("GET", "/api/v1/search/a/b%20c?page=2", {}),
    ("GET", "/api/v1/users/me", {}),
    ("GET", "/api/v1/users/export", {}),
    ("OPTIONS", "/api/v1/users/me", {}),
]


def module_of(tag: str) -> ModuleType:
    """Make ``api/v1/<tag>.py`` anew, as an import would."""
    module = ModuleType(tag.replace("-", "_"))
    exec(MODULES[tag], vars(module))  # noqa: S102  # router modules as a project has them
    return module


def convert(directory: Path, tag: str) -> None:
    """Make the plugin folder of a router module, as the guide says."""
    folder = directory / tag.replace("-", "_")
    folder.mkdir()
    if tag == "game-stealth":
        (folder / "manifest.py").write_text(stealth_manifest())
        (folder / "__init__.py").write_text(block("plugins/game_stealth/__init__.py"))
    else:
        (folder / "manifest.py").write_text(HEADER.format(id=tag) + MODULES[tag])
        (folder / "__init__.py").write_text("from .manifest import manifest, router\n")


def new_app(tmp_path: Path, directory: Path, hard_coded: list[str]) -> FastAPI:
    """A host with some routers left in its code, a route of its own and a static site behind it all."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        manager = init_plugin_manager(app, directory)
        await manager.enable_all()
        yield
        await manager.disable_all()

    app = FastAPI(lifespan=lifespan)
    for tag in hard_coded:
        app.include_router(module_of(tag).router, prefix="/api/v1", tags=[tag])

    @app.get("/api/v1/health")
    def health() -> str:
        return "fine"

    app.mount("/", StaticFiles(directory=tmp_path / "site", html=True), name="site")
    return app


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An empty plugin directory, and a static site beside it."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("<h1>Welcome</h1>")
    (tmp_path / "site" / "style.css").write_text("h1 { color: red }")
    (tmp_path / "plugins").mkdir()
    return tmp_path / "plugins"


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Run the app's lifespan and talk to it."""
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client


async def answers(client: httpx.AsyncClient) -> list[tuple[str, str, int, dict[str, str], bytes]]:
    """Return what every request is answered: status, headers that matter and body."""
    found = []
    for method, url, more in REQUESTS:
        answer = await client.request(method, url, **more)
        headers = {
            n: v for n, v in answer.headers.items() if n in ("allow", "content-type", "location", "content-length")
        }
        found.append((method, url, answer.status_code, headers, answer.content))
    return found


async def operations(client: httpx.AsyncClient) -> dict[str, tuple[list[str], list[str], list[str]]]:
    """Return path and method → tags, parameters and answers of the schema."""
    paths = (await client.get("/openapi.json")).json()["paths"]
    return {
        f"{method} {path}": (
            sorted(set(operation.get("tags", []))),
            [parameter["name"] for parameter in operation.get("parameters", [])],
            sorted(operation["responses"]),
        )
        for path, methods in paths.items()
        for method, operation in methods.items()
    }


async def test_each_step_of_the_migration_serves_the_same_api(tmp_path: Path, directory: Path) -> None:
    """Nothing, one, two ... all routers are plugins: the same answers, and the same operations in the schema."""
    async with running(new_app(tmp_path, directory, list(MODULES))) as client:
        expected, schema = await answers(client), await operations(client)
    assert {status for _, _, status, _, _ in expected} >= {200, 201, 404, 405, 422}
    for step, tag in enumerate(MODULES, start=1):
        convert(directory, tag)
        app = new_app(tmp_path, directory, list(MODULES)[step:])
        async with running(app) as client:
            enabled = [each.id for each in app.state.plugin_manager.list_plugins()]
            assert enabled == sorted(list(MODULES)[:step])
            for got, wanted in zip(await answers(client), expected, strict=True):
                assert got == wanted, f"after {tag} became a plugin"
            assert await operations(client) == schema


async def test_a_router_that_was_forgotten_in_the_code_keeps_its_routes(tmp_path: Path, directory: Path) -> None:
    """The host wins: the plugin fails with an error that names both, and the API stays as it was."""
    convert(directory, "items")
    convert(directory, "users")
    app = new_app(tmp_path, directory, ["game-stealth", "items", "search"])
    async with running(app) as client:
        record = app.state.plugin_manager.get("items")
        assert record.state is PluginState.FAILED
        assert record.reason.to_json()["type"] == "RouteConflictError"
        assert str(record.reason).startswith("GET /api/v1/items/ of plugin 'items' (")
        assert "is already served by the host app (" in str(record.reason)
        assert app.state.plugin_manager.get("users").state is PluginState.ENABLED
        got = await answers(client)
    plugins = tmp_path / "none"
    plugins.mkdir()
    async with running(new_app(tmp_path, plugins, list(MODULES))) as client:
        assert got == await answers(client)


async def test_the_guides_hard_coded_main_can_be_emptied_line_by_line(
    tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The "before" page as printed, then with the line of game_stealth taken out and its plugin put in."""
    api = ModuleType("pixsim7_backend.api.v1")
    code = block("Before (Hardcoded)")
    names = code.partition("(")[2].partition(")")[0].replace(",", " ").split()
    assert len(names) == 19
    for name in names:
        module = module_of("game-stealth") if name == "game_stealth" else ModuleType(name)
        vars(module).setdefault("router", APIRouter(prefix=f"/{name}"))
        setattr(api, name, module)
    monkeypatch.setitem(sys.modules, "pixsim7_backend.api", ModuleType("pixsim7_backend.api"))
    monkeypatch.setitem(sys.modules, "pixsim7_backend.api.v1", api)
    [stealth_line] = [line for line in code.splitlines() if line.startswith("app.include_router(game_stealth")]

    async def pickpocket(text: str) -> httpx.Response:
        app = new_app(tmp_path, directory, [])
        static = app.router.routes.pop()
        exec(text, {"app": app})  # noqa: S102  # the guide's own text
        app.router.routes.append(static)
        async with running(app) as client:
            return await client.post("/api/v1/game/stealth/pickpocket", params={"req": "npc"})

    assert (await pickpocket(code)).json() == {"attempt": "npc"}
    without = code.replace(stealth_line, "")
    assert (await pickpocket(without)).status_code == 405, "the static site answers"
    convert(directory, "game-stealth")
    assert (await pickpocket(without)).json() == {"attempt": "npc"}
