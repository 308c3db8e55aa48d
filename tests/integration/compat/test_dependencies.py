"""Dependencies, overrides, security, limits and settings of the app reach plugins."""

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Form, HTTPException, Request, Security
from fastapi.responses import PlainTextResponse, Response
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBasic, HTTPBasicCredentials, OAuth2PasswordBearer, SecurityScopes

from .twins import PluginSpec, make_twins, request

pytestmark = pytest.mark.anyio


def spec(router: APIRouter, plugin: str = "deps", prefix: str = "/api") -> PluginSpec:
    return PluginSpec(plugin, lambda: [router], prefix)


async def test_dependencies_with_yield() -> None:
    """Teardown runs in the same order, sees the exception, and may not change a sent answer."""
    log: list[str] = []

    async def outer() -> AsyncIterator[str]:
        log.append("outer in")
        try:
            yield "outer"
        except ValueError:
            log.append("outer saw it")
            raise
        finally:
            log.append("outer out")

    def inner(value: Annotated[str, Depends(outer)]) -> Iterator[str]:
        log.append("inner in")
        yield value + " inner"
        log.append("inner out")

    router = APIRouter(dependencies=[Depends(outer)])

    @router.get("/ok")
    def ok(value: Annotated[str, Depends(inner)], tasks: BackgroundTasks) -> str:
        tasks.add_task(log.append, "task")
        return value

    @router.get("/bad")
    def bad(value: Annotated[str, Depends(inner)]) -> str:
        raise ValueError(value)

    twins = make_twins(spec(router))
    for path in ("/api/ok", "/api/bad"):
        log.clear()
        await request(twins.hard, "GET", path)
        expected = list(log)
        log.clear()
        await request(twins.platform, "GET", path)
        assert log == expected
        await twins.ask("GET", path)


async def test_overrides_and_app_settings() -> None:
    """Overrides, app dependencies, default response class, responses and callbacks apply."""

    def who() -> str:
        return "real"

    def guard(request: Request) -> None:
        if "blocked" in request.query_params:
            raise HTTPException(403, "blocked by the app")

    callbacks = APIRouter()

    @callbacks.post("{$callback_url}/done")
    def done(event: dict[str, int]) -> None: ...

    def host() -> FastAPI:
        return FastAPI(
            dependencies=[Depends(guard)],
            default_response_class=PlainTextResponse,
            responses={418: {"description": "a teapot"}},
            callbacks=callbacks.routes,
            deprecated=True,
            generate_unique_id_function=lambda route: f"{route.tags[0]}-{route.name}",
            strict_content_type=False,
            max_body_size=64,
        )

    router = APIRouter(prefix="/x", tags=["x"])

    @router.get("/who")
    def get_who(name: Annotated[str, Depends(who)]) -> str:
        return name

    @router.post("/count", response_class=PlainTextResponse, include_in_schema=False)
    def count(body: dict[str, Any]) -> str:
        return str(len(body))

    twins = make_twins(spec(router), host=host)
    await twins.ask("GET", "/api/x/who")
    await twins.ask("GET", "/api/x/who?blocked=1")
    await twins.ask("POST", "/api/x/count", content=b'{"a": 1}')
    await twins.ask("POST", "/api/x/count", content=b"x" * 65)
    for app in (twins.hard, twins.platform):
        app.dependency_overrides[who] = lambda: "override"
    assert (await twins.ask("GET", "/api/x/who")).text == "override"
    document = twins.compare_openapi()
    assert document["paths"]["/api/x/who"]["get"]["operationId"] == "x-get_who"


async def test_security_schemes() -> None:
    """Security dependencies refuse and admit alike, and are documented with their scopes."""
    oauth = OAuth2PasswordBearer("token", scopes={"read": "r", "write": "w"})

    def user(scopes: SecurityScopes, token: Annotated[str, Depends(oauth)]) -> str:
        return f"{token} {scopes.scope_str}"

    router = APIRouter()

    @router.get("/me")
    def me(name: Annotated[str, Security(user, scopes=["read"])]) -> str:
        return name

    @router.get("/basic")
    def basic(credentials: Annotated[HTTPBasicCredentials, Depends(HTTPBasic(realm="plugins"))]) -> str:
        return credentials.username

    @router.get("/key")
    def key(value: Annotated[str, Depends(APIKeyHeader(name="x-key"))]) -> str:
        return value

    twins = make_twins(spec(router))
    for path in ("/api/me", "/api/basic", "/api/key"):
        await twins.ask("GET", path)
        await twins.ask("GET", path, headers={"authorization": "Bearer abc", "x-key": "k"})
        await twins.ask("GET", path, auth=("ann", "secret"))
    assert set(twins.compare_openapi()["components"]["securitySchemes"]) == {
        "OAuth2PasswordBearer",
        "HTTPBasic",
        "APIKeyHeader",
    }


async def test_limits_of_nested_routers() -> None:
    """Body and form limits of app, router, inclusion and route are resolved alike, at any depth."""
    inner = APIRouter(prefix="/inner", max_body_size=40)

    @inner.post("/echo")
    async def echo(request: Request) -> int:
        return len(await request.body())

    @inner.post("/more", max_body_size=400)
    async def more(request: Request) -> int:
        return len(await request.body())

    @inner.post("/form")
    def form(a: Annotated[str, Form()] = "", b: Annotated[str, Form()] = "") -> str:
        return a + b

    async def plain(request: Request) -> Response:
        return PlainTextResponse(str(len(await request.body())))

    inner.add_route("/inner/plain", plain, methods=["POST"])
    outer = APIRouter(prefix="/outer", form_limits={"max_fields": 1})
    outer.include_router(inner, form_limits={"max_part_size": 8})

    def host() -> FastAPI:
        return FastAPI(max_body_size=1000, form_limits={"max_fields": 3})

    twins = make_twins(spec(outer), host=host)
    for path in ("echo", "more", "plain"):
        for size in (10, 60, 600, 2000):
            await twins.ask("POST", f"/api/outer/inner/{path}", content=b"x" * size)
    for fields in ({"a": "1"}, {"a": "1", "b": "2"}):
        await twins.ask("POST", "/api/outer/inner/form", data=fields)
        await twins.ask("POST", "/api/outer/inner/form", files={name: (None, value) for name, value in fields.items()})


async def test_custom_route_classes() -> None:
    """Route classes with their own handler, match or handling are used as in a hard-coded app."""

    class Stamped(APIRoute):
        def get_route_handler(self) -> Any:
            original = super().get_route_handler()

            async def stamped(request: Request) -> Response:
                response: Response = await original(request)
                response.headers["x-route"] = self.path
                return response

            return stamped

    class Loose(APIRoute):
        def matches(self, scope: Any) -> Any:
            return super().matches({**scope, "path": scope["path"].lower()})

    class Chatty(APIRoute):
        async def handle(self, scope: Any, receive: Any, send: Any) -> None:
            scope["chatty"] = True
            await super().handle(scope, receive, send)

    router = APIRouter(prefix="/c")
    for kind in (Stamped, Loose, Chatty):
        child = APIRouter(route_class=kind, prefix=f"/{kind.__name__.lower()}")

        @child.get("/it")
        def it(request: Request) -> dict[str, Any]:
            return {"chatty": request.scope.get("chatty"), "route": request.scope["route"].path}

        router.include_router(child)
    twins = make_twins(spec(router))
    for path in ("/stamped/it", "/loose/it", "/LOOSE/it", "/chatty/it", "/chatty/IT"):
        await twins.ask("GET", "/api/c" + path)
        await twins.ask("POST", "/api/c" + path)
    twins.compare_openapi()


async def test_router_with_its_own_matching() -> None:
    """A router class that decides for itself is asked as a whole."""

    class Choosy(APIRouter):
        def matches(self, scope: Any) -> Any:
            if b"secret" in dict(scope["headers"]):
                return super().matches(scope)
            from starlette.routing import Match

            return Match.NONE, {}

    router = Choosy(prefix="/choosy")

    @router.get("/it")
    def it() -> str:
        return "chosen"

    twins = make_twins(spec(router))
    assert (await twins.ask("GET", "/api/choosy/it")).status_code == 404
    assert (await twins.ask("GET", "/api/choosy/it", headers={"secret": "1"})).status_code == 200
