from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI, Header, HTTPException, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, field_validator
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm.exc import StaleDataError

from pixsim7_backend import problems
from pixsim7_backend.infrastructure.plugins.errors import DependantsEnabledError, PluginNotFoundError, ShareUsedUpError
from pixsim7_backend.problems import PROBLEM_RESPONSES, install_problem_handlers
from pixsim7_backend.request_ids import RequestIds

pytestmark = pytest.mark.anyio


class Slot(BaseModel):
    chance: float

    @field_validator("chance")
    @classmethod
    def _check(cls, value: float) -> float:
        if not 0 <= value <= 1:
            raise ValueError("must be between 0 and 1")
        return value


class Attempt(BaseModel):
    slots: list[Slot]
    password: str = ""


def make_app(error: Exception | None = None) -> FastAPI:
    app = FastAPI(responses=PROBLEM_RESPONSES)

    @app.get("/raise")
    def raise_error() -> None:
        if error:
            raise error

    @app.post("/attempts")
    def attempt(
        attempt: Attempt, limit: Annotated[int, Query(ge=1)] = 1, version: Annotated[int, Header()] = 1
    ) -> None: ...

    install_problem_handlers(app)
    app.add_middleware(RequestIds)
    return app


async def send(app: FastAPI, method: str, path: str, **options: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, path, **options)


async def raised(error: Exception) -> httpx.Response:
    return await send(make_app(error), "GET", "/raise", headers={"X-Request-ID": "r-1"})


async def test_problem_has_all_members_of_the_rfc_and_the_request_id() -> None:
    """A raised problem is answered as problem+json with type, title, status, detail, instance and request id."""
    response = await raised(problems.NotFound("game session", 7))
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"] == "r-1"
    assert response.json() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "there is no game session 7",
        "instance": "/raise",
        "request_id": "r-1",
    }


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (problems.BadRequest("x"), 400),
        (problems.Forbidden("x"), 403),
        (problems.Conflict("x"), 409),
        (problems.PreconditionFailed("x"), 412),
        (problems.ContentTooLarge("x"), 413),
        (problems.UnprocessableContent("x"), 422),
        (problems.ServiceUnavailable("x"), 503),
        (HTTPException(418, "x"), 418),
    ],
)
async def test_each_kind_has_its_status(error: Exception, status: int) -> None:
    """Every kind of problem, and FastAPI's own exception, keeps its status and detail."""
    response = await raised(error)
    assert (response.status_code, response.json()["status"], response.json()["detail"]) == (status, status, "x")


async def test_missing_login_names_the_scheme() -> None:
    """A 401 tells the client how to authenticate."""
    response = await raised(problems.Unauthorized())
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(("seconds", "header"), [(0.2, "1"), (2, "2"), (2.1, "3")])
async def test_too_many_requests_says_when_to_return(seconds: float, header: str) -> None:
    """Retry-After is whole seconds, rounded up, and never zero."""
    response = await raised(problems.TooManyRequests(retry_after=seconds))
    assert (response.status_code, response.headers["retry-after"]) == (429, header)


async def test_further_members_cannot_replace_the_standard_ones() -> None:
    """A problem carries members of its own beside the standard ones, which always win."""
    response = await raised(problems.Conflict("no", failed="flags.key", instance="elsewhere"))
    assert response.json()["failed"] == "flags.key"
    assert response.json()["instance"] == "/raise"


async def test_problem_is_plain_in_an_app_without_the_handlers() -> None:
    """A plugin that raises a problem also works in an app that knows nothing of problems."""
    app = FastAPI()

    @app.get("/")
    def index() -> None:
        raise problems.NotFound("NPC", 3)

    response = await send(app, "GET", "/")
    assert (response.status_code, response.json()) == (404, {"detail": "there is no NPC 3"})


async def test_invalid_input_points_at_each_mistake() -> None:
    """A 422 lists each mistake with its place as a JSON pointer and never repeats what was sent."""
    body = {"slots": [{"chance": 0.5}, {"chance": 2}], "password": ["hunter2"]}
    response = await send(make_app(), "POST", "/attempts?limit=0", json=body, headers={"version": "x"})
    assert response.status_code == 422
    assert response.json()["errors"] == [
        {
            "in": "query",
            "pointer": "#/limit",
            "detail": "Input should be greater than or equal to 1",
            "code": "greater_than_equal",
        },
        {
            "in": "header",
            "pointer": "#/version",
            "detail": "Input should be a valid integer, unable to parse string as an integer",
            "code": "int_parsing",
        },
        {"in": "body", "pointer": "#/slots/1/chance", "detail": "must be between 0 and 1", "code": "value_error"},
        {"in": "body", "pointer": "#/password", "detail": "Input should be a valid string", "code": "string_type"},
    ]
    assert "hunter2" not in response.text


async def test_pointer_escapes_its_separators() -> None:
    """A key with a slash or a tilde stays one step of the pointer."""
    assert problems._pointer(["a/b", "c~d", 0]) == "#/a~1b/c~0d/0"


async def test_broken_json_is_a_422() -> None:
    """A body that is not JSON is invalid input, not a server error."""
    response = await send(make_app(), "POST", "/attempts", content=b"{", headers={"content-type": "application/json"})
    assert response.status_code == 422
    assert response.json()["errors"][0]["code"] == "json_invalid"


async def test_unknown_path_and_wrong_method_are_problems() -> None:
    """404 and 405 of the router are problems too; 405 keeps its Allow header."""
    missing = await send(make_app(), "GET", "/nothing")
    assert (missing.status_code, missing.json()["detail"]) == (404, "Not Found")
    wrong = await send(make_app(), "DELETE", "/attempts")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert wrong.json()["title"] == "Method Not Allowed"


async def test_structured_detail_becomes_errors() -> None:
    """FastAPI lets a detail be any JSON; a problem's detail is text, so it moves to `errors`."""
    response = await raised(HTTPException(400, [{"field": "a"}]))
    assert (response.json()["detail"], response.json()["errors"]) == ("Bad Request", [{"field": "a"}])


async def test_bodiless_status_has_no_body() -> None:
    """An exception with a status that allows no body is answered without one."""
    response = await raised(HTTPException(304))
    assert (response.status_code, response.content) == (304, b"")


async def test_unforeseen_error_shows_no_internals(caplog: pytest.LogCaptureFixture) -> None:
    """A bug is a 500 problem with the request id; its text and traceback are in the log only, once."""
    response = await raised(RuntimeError("password=hunter2"))
    assert response.status_code == 500
    assert response.headers["x-request-id"] == "r-1"
    assert response.json()["request_id"] == "r-1"
    assert "hunter2" not in response.text
    assert [record.getMessage() for record in caplog.records] == ["GET /raise failed"]
    assert caplog.records[0].exc_info is not None


async def test_error_after_the_answer_began_reaches_the_server() -> None:
    """An answer that has begun cannot become a problem: the server has to cut the connection."""
    app = make_app()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"
        raise RuntimeError("too late")

    @app.get("/stream")
    def stream() -> StreamingResponse:
        return StreamingResponse(chunks())

    with pytest.raises(RuntimeError, match="too late"):
        await send(app, "GET", "/stream")


async def test_refused_write_is_a_conflict_without_values(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A violated constraint is a 409; neither the answer nor the log has the statement's values."""
    caplog.set_level(logging.INFO)
    engine = create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    app = make_app()

    @app.get("/twice")
    def twice() -> None:
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE t (name TEXT UNIQUE)"))
            for _ in range(2):
                connection.execute(text("INSERT INTO t VALUES (:name)"), {"name": "hunter2"})

    response = await send(app, "GET", "/twice")
    engine.dispose()
    assert response.status_code == 409
    assert "hunter2" not in response.text + caplog.text
    assert "UNIQUE constraint failed: t.name" in caplog.text


class _Driver(Exception):
    def __init__(self, text: str = "", **attributes: str) -> None:
        super().__init__(text)
        vars(self).update(attributes)


@pytest.mark.parametrize(
    ("cause", "status"),
    [
        (_Driver("locked", sqlite_errorname="SQLITE_BUSY_SNAPSHOT"), 409),
        (_Driver("deadlock", sqlstate="40P01"), 409),
        (_Driver("serialisation", sqlstate="40001"), 409),
        (_Driver("server closed the connection"), 503),
    ],
)
async def test_lost_race_and_lost_database_differ(cause: Exception, status: int) -> None:
    """A lost race for a lock is a 409 to retry; a database that is away is a 503; both say when to return."""
    response = await raised(OperationalError("SELECT 1", {}, cause))
    assert response.status_code == status
    assert int(response.headers["retry-after"]) >= 1


async def test_statement_that_cannot_be_right_is_an_error_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    """A column that is not there will not come by waiting: the answer is a 500, and the log has the place."""
    engine = create_engine("sqlite://")
    with engine.connect() as connection, pytest.raises(OperationalError) as refused:
        connection.execute(text("SELECT mood FROM nowhere"))
    engine.dispose()
    response = await raised(refused.value)
    assert response.status_code == 500
    assert "retry-after" not in response.headers
    assert "no such table: nowhere" in caplog.text
    assert __file__ in caplog.text


async def test_stale_row_is_a_conflict() -> None:
    """A row whose version moved on is a 409."""
    assert (await raised(StaleDataError("0 rows matched"))).status_code == 409


async def test_platform_errors_have_a_status() -> None:
    """An unknown plugin is a 404, an operation that the state forbids a 409; both name the plugin."""
    unknown = await raised(PluginNotFoundError(plugin="game-stelth", similar="game-stealth"))
    assert (unknown.status_code, unknown.json()["plugin"]) == (404, "game-stelth")
    needed = await raised(DependantsEnabledError(plugin="auth", dependants=["users"]))
    assert needed.status_code == 409
    assert "retry-after" not in needed.headers


async def test_a_share_that_is_used_up_says_when_to_come_again() -> None:
    """Neither the database's fault nor this client's: 503, with what was used up and when there is more."""
    used = await raised(ShareUsedUpError(plugin="census", what="db.milliseconds", allowed=30_000, retry_after=17))
    assert (used.status_code, used.headers["retry-after"]) == (503, "17")
    told = used.json()
    assert told["detail"] == "plugin 'census' has used its 30,000 db.milliseconds of this minute; try again in 17 s"
    assert (told["plugin"], told["error"]["type"]) == ("census", "ShareUsedUpError")


async def test_documentation_shows_problems() -> None:
    """OpenAPI documents that errors of every operation are problem details."""
    document = (await send(make_app(), "GET", "/openapi.json")).json()
    responses = document["paths"]["/attempts"]["post"]["responses"]
    assert list(responses) == ["200", "4XX"]
    assert "application/problem+json" in responses["4XX"]["content"]
