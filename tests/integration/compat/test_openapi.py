"""The OpenAPI document: qualified names, nothing lost in joining, served with an ETag, fresh after a publish."""

import logging
from typing import Annotated, Any, Literal

import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.security import OAuth2PasswordBearer
from pydantic import BaseModel, Field

from pixsim7_backend.infrastructure.plugins._dispatch import PluginRoute
from pixsim7_backend.infrastructure.plugins._ledger.ownership import AppKey

from .twins import PluginSpec, Twins, make_twins, mount_of, request

pytestmark = pytest.mark.anyio


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]


class Owner(BaseModel):
    pets: list[Annotated[Cat | Dog, Field(discriminator="kind")]]
    example: Cat | None = None
    default: dict[str, Dog] = {}


def pets(prefix: str = "/pets") -> APIRouter:
    router = APIRouter(prefix=prefix, tags=["pets"])

    @router.post("", responses={400: {"model": Dog}, 404: {"description": "no", "links": {"again": {}}}})
    def adopt(owner: Owner) -> list[Owner]:
        return [owner]

    return router


def spec(plugin: str, prefix: str = "/pets", **options: Any) -> PluginSpec:
    return PluginSpec(plugin, lambda: [pets(prefix)], **options)


def described(host: FastAPI | None = None) -> FastAPI:
    app = host or FastAPI(
        title="Described",
        summary="s",
        description="d",
        openapi_tags=[{"name": "pets"}],
        servers=[{"url": "/prod"}],
        contact={"name": "us"},
        license_info={"name": "MIT"},
        openapi_external_docs={"url": "https://example.org"},
    )

    @app.webhooks.post("changed")
    def changed(cat: Cat) -> None: ...

    @app.get("/own")
    def own(cat_id: int) -> Cat:
        return Cat(kind="cat")

    return app


async def test_host_metadata_webhooks_and_callbacks() -> None:
    """What the host says of itself is kept, with its own schemas unqualified."""
    callbacks = APIRouter()

    @callbacks.post("{$request.body#/url}")
    def happened(dog: Dog) -> None: ...

    def make() -> list[APIRouter]:
        router = pets()

        @router.put("/call", callbacks=callbacks.routes)
        def call(owner: Owner) -> None: ...

        return [router]

    twins = make_twins(PluginSpec("my-pets", make, tags=("pets", "mine")), host=described)
    document = twins.compare_openapi()
    assert {"Cat", "my_pets__Cat", "my_pets__Owner", "HTTPValidationError"} <= set(document["components"]["schemas"])
    mapping = document["components"]["schemas"]["my_pets__Owner"]["properties"]["pets"]["items"]["discriminator"]
    assert mapping["mapping"]["cat"] == "#/components/schemas/my_pets__Cat"
    example = document["components"]["schemas"]["my_pets__Owner"]["properties"]["example"]
    assert example["anyOf"][0] == {"$ref": "#/components/schemas/my_pets__Cat"}
    assert document["paths"]["/api/pets/call"]["put"]["tags"] == ["pets", "mine"]


async def test_names_do_not_depend_on_other_plugins() -> None:
    """Publishing a second plugin with the same models renames nothing of the first."""
    twins = make_twins(spec("a"))
    alone = twins.platform.openapi()
    mounts = {**twins.mounts, "b": mount_of(twins.platform, spec("b", "/others"))}
    twins.route.publish(mounts)
    both = twins.platform.openapi()
    assert both["paths"]["/api/pets"] == alone["paths"]["/api/pets"]
    assert {"a__Owner", "b__Owner"} <= set(both["components"]["schemas"])


async def test_paths_shared_by_several() -> None:
    """A path with one method from the host and others from two plugins has them all."""

    def host() -> FastAPI:
        app = FastAPI()
        app.add_api_route("/api/shared", lambda: "host", name="of_host")
        return app

    def make(method: str) -> PluginSpec:
        router = APIRouter()
        router.add_api_route("/shared", lambda: method, methods=[method], name=f"by_{method}")
        return PluginSpec(method.lower(), lambda: [router])

    twins = make_twins(make("POST"), make("PUT"), host=host)
    assert set(twins.compare_openapi()["paths"]["/api/shared"]) == {"get", "post", "put"}


async def test_clashing_operation_ids_and_security_schemes(caplog: pytest.LogCaptureFixture) -> None:
    """Ids and schemes that mean different things are qualified in the later plugin, with a warning."""

    def make(name: str) -> PluginSpec:
        router = APIRouter(prefix=f"/{name}")
        login = OAuth2PasswordBearer(f"/{name}/token")

        @router.get("/list", operation_id="list_all")
        def list_all(token: Annotated[str, Depends(login)]) -> str:
            return token

        return PluginSpec(name, lambda: [router])

    twins = make_twins(make("one"), make("two"), make("three"))
    with caplog.at_level(logging.WARNING):
        document = twins.platform.openapi()
    ids = [item["get"]["operationId"] for item in document["paths"].values()]
    assert ids == ["list_all", "two__list_all", "three__list_all"]
    schemes = document["components"]["securitySchemes"]
    assert {name: it["flows"]["password"]["tokenUrl"] for name, it in schemes.items()} == {
        "OAuth2PasswordBearer": "/one/token",
        "two__OAuth2PasswordBearer": "/two/token",
        "three__OAuth2PasswordBearer": "/three/token",
    }
    assert document["paths"]["/api/two/list"]["get"]["security"] == [{"two__OAuth2PasswordBearer": []}]
    assert "OpenAPI name 'list_all' is taken; plugin two shows 'two__list_all'" in caplog.text


async def test_served_with_etag() -> None:
    """The document is served with an ETag, 304 when it is known, and another one after a publish."""
    twins = make_twins(spec("a"))
    first = await request(twins.platform, "GET", "/openapi.json")
    etag = first.headers["etag"]
    assert first.headers["content-type"] == "application/json"
    for known in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        again = await request(twins.platform, "GET", "/openapi.json", headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    twins.route.publish({})
    fresh = await request(twins.platform, "GET", "/openapi.json", headers={"if-none-match": etag})
    assert fresh.status_code == 200
    assert fresh.json()["paths"] == {}
    twins.route.publish(twins.mounts)
    assert (await request(twins.platform, "GET", "/openapi.json")).headers["etag"] == etag
    assert (await request(twins.platform, "GET", "/docs")).status_code == 200


@pytest.mark.parametrize("in_servers", [True, False])
async def test_root_path_is_a_server(in_servers: bool) -> None:
    """Behind a root path the document names it as a server, as FastAPI does."""
    twins = make_twins(spec("a"), host=lambda: FastAPI(root_path_in_servers=in_servers, servers=[{"url": "/x"}]))
    for root_path in ("", "/behind/", "/x", "/other"):
        answers = [
            (await request(app, "GET", "/openapi.json", root_path=root_path)).json()["servers"]
            for app in (twins.hard, twins.platform)
        ]
        assert answers[0] == answers[1]


async def test_host_routes_added_later() -> None:
    """A route that the host adds later is in the next document."""
    twins = make_twins(spec("a"))
    assert "/later" not in twins.platform.openapi()["paths"]
    for app in (twins.hard, twins.platform):
        app.add_api_route("/later", lambda: 1, name="later")
    twins.compare_openapi()
    assert "/later" in (await request(twins.platform, "GET", "/openapi.json")).json()["paths"]


async def test_changed_dict_is_served() -> None:
    """Who changes the dict that app.openapi() returned sees the change served, until the next publish."""
    twins = make_twins(spec("a"))
    twins.platform.openapi()["info"]["x-logo"] = "logo"
    assert (await request(twins.platform, "GET", "/openapi.json")).json()["info"]["x-logo"] == "logo"
    assert twins.platform.openapi() is twins.platform.openapi()
    twins.route.publish({**twins.mounts})
    twins.platform.openapi_schema = None
    assert "x-logo" not in twins.platform.openapi()["info"]


def recipe(app: FastAPI) -> None:
    """Override app.openapi as FastAPI's documentation shows."""

    def custom() -> dict[str, Any]:
        if not app.openapi_schema:
            app.openapi_schema = get_openapi(title="Custom", version="2", routes=app.routes)
        return app.openapi_schema

    app.openapi = custom  # type: ignore[method-assign]


@pytest.mark.parametrize("before", [True, False])
async def test_overridden_openapi(before: bool) -> None:
    """A host with its own app.openapi keeps it, sees every plugin route, and is fresh after a publish."""
    platform = FastAPI()
    if before:
        recipe(platform)
    route = PluginRoute.install(platform, AppKey())
    mounts = {"a": mount_of(platform, spec("a"))}
    route.publish(mounts)
    if not before:
        recipe(platform)
    assert set(platform.openapi()["paths"]) == {"/api/pets"}
    served = await request(platform, "GET", "/openapi.json")
    assert served.json()["info"] == {"title": "Custom", "version": "2"}
    assert served.headers["etag"]
    route.publish({**mounts, "b": mount_of(platform, spec("b", "/more"))})
    assert set(platform.openapi()["paths"]) == {"/api/pets", "/api/more"}
    route.uninstall()
    assert platform.openapi()["paths"] == {}


async def test_app_class_with_its_own_openapi() -> None:
    """A subclass of FastAPI that overrides openapi() is asked as ever."""

    class Branded(FastAPI):
        def openapi(self) -> dict[str, Any]:
            return {**super().openapi(), "x-brand": "ours"}

    twins = make_twins(spec("a"), host=Branded)
    assert twins.platform.openapi()["x-brand"] == "ours"
    assert set(twins.platform.openapi()["paths"]) == {"/api/pets"}
    twins.route.publish({})
    assert twins.platform.openapi()["paths"] == {}


async def test_uninstall_gives_openapi_back() -> None:
    """After uninstalling, the app serves FastAPI's own document again."""
    twins = make_twins(spec("a"))
    twins.route.uninstall()
    bare = Twins(FastAPI(), twins.platform, twins.route)
    await bare.ask("GET", "/openapi.json")
    assert "openapi" not in vars(twins.platform)


async def test_no_openapi_url() -> None:
    """An app without an OpenAPI url serves none."""
    twins = make_twins(spec("a"), host=lambda: FastAPI(openapi_url=None))
    assert (await twins.ask("GET", "/openapi.json")).status_code == 404
