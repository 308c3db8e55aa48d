"""Errors as RFC 9457 problem details: the types that code raises, and how everything else becomes one.

A problem is an ``HTTPException``, so a plugin that raises one also works in an app that has not
called :func:`install_problem_handlers`; there it is FastAPI's plain ``{"detail": …}``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar

from fastapi import FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import HTTPException, RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.security.base import SecurityBase
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm.exc import StaleDataError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pixsim7_backend.db.errors import ConflictError, DatabaseBusyError, UnstorableValueError
from pixsim7_backend.infrastructure.plugins.admin import problem_of
from pixsim7_backend.infrastructure.plugins.errors import PluginError, ShareUsedUpError
from pixsim7_backend.request_ids import current_request_id

MEDIA_TYPE = "application/problem+json"
_BODILESS = frozenset({204, 205, 304})

logger = logging.getLogger("pixsim7.problems")


class Problem(HTTPException):
    """An error answer. ``detail`` tells people what is wrong with this request and the way out.

    ``members`` become further members of the problem object; ``headers`` go into the answer.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "about:blank"

    def __init__(self, detail: str = "", *, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        super().__init__(self.status, detail or HTTPStatus(self.status).phrase, dict(headers) if headers else None)
        self.members = members


class BadRequest(Problem):
    """400: the request makes no sense, whatever the state of things."""

    status = 400


class Unauthorized(Problem):
    """401: nobody, or nobody valid, is logged in."""

    status = 401

    def __init__(self, detail: str = "log in and send `Authorization: Bearer <token>`", **members: Any) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": "Bearer"}, **members)


class Forbidden(Problem):
    """403: the caller is known and may not."""

    status = 403


class NotFound(Problem):
    """404: there is no such thing, or it is somebody else's (which is not revealed)."""

    status = 404

    def __init__(self, what: str, key: object = None, **members: Any) -> None:
        name = f"{what} {key}" if key is not None else what
        super().__init__(f"there is no {name}", **members)


class Conflict(Problem):
    """409: right in itself, but not in the present state."""

    status = 409


class PreconditionFailed(Problem):
    """412: ``If-Match`` names a version that is no longer the current one."""

    status = 412


class ContentTooLarge(Problem):
    """413: the body is larger than what is accepted."""

    status = 413


class UnprocessableContent(Problem):
    """422: well-formed, but a value is not acceptable."""

    status = 422


class TooManyRequests(Problem):
    """429: come back in ``retry_after`` seconds (rounded up, at least 1)."""

    status = 429

    def __init__(self, detail: str = "too many requests", *, retry_after: float = 1, **members: Any) -> None:
        super().__init__(detail, headers={"Retry-After": str(max(1, -int(-retry_after // 1)))}, **members)


class ServiceUnavailable(Problem):
    """503: something this answer needs does not work right now."""

    status = 503

    def __init__(self, detail: str = "", *, retry_after: float = 1, **members: Any) -> None:
        super().__init__(detail, headers={"Retry-After": str(max(1, -int(-retry_after // 1)))}, **members)


_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
    "required": ["type", "title", "status", "detail"],
}

#: For ``FastAPI(responses=…)``: documents on every operation that errors are problem details.
PROBLEM_RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "What is wrong with the request (RFC 9457)", "content": {MEDIA_TYPE: {"schema": _SCHEMA}}}
}


def install_problem_handlers(app: FastAPI) -> None:
    """Make every error answer of ``app`` a problem: raised problems, HTTP errors, invalid input, and the unforeseen.

    Call it before the app starts; add middleware that should also see the 500 answers afterwards.
    """
    app.add_exception_handler(StarletteHTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_input)
    app.add_exception_handler(PluginError, _on_plugin_error)
    app.add_exception_handler(IntegrityError, _on_integrity_error)
    app.add_exception_handler(StaleDataError, _on_stale_row)
    app.add_exception_handler(OperationalError, _on_operational_error)
    app.add_exception_handler(ConflictError, _on_lost_race)
    app.add_exception_handler(DatabaseBusyError, _on_lost_race)
    app.add_exception_handler(UnstorableValueError, _on_unstorable_value)
    app.add_middleware(UnforeseenErrors)


def problem_response(
    request: Request,
    status: int,
    detail: str,
    *,
    problem_type: str = "about:blank",
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, Any] | None = None,
) -> Response:
    """Return the problem as a response; ``members`` cannot replace the standard ones."""
    if status in _BODILESS:
        return Response(status_code=status, headers=headers)
    request_id = current_request_id.get()
    content = {
        **(members or {}),
        "type": problem_type,
        "title": _phrase(status),
        "status": status,
        "detail": detail,
        "instance": request.scope["path"],
        **({"request_id": request_id} if request_id else {}),
    }
    return JSONResponse(content, status, headers, media_type=MEDIA_TYPE)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    plain = isinstance(error.detail, str)
    members = error.members if isinstance(error, Problem) else {} if plain else {"errors": error.detail}
    detail = error.detail if plain else _phrase(error.status_code)
    kind = error.type if isinstance(error, Problem) else "about:blank"
    return problem_response(
        request, error.status_code, detail, problem_type=kind, headers=error.headers, members=members
    )


async def _on_invalid_input(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if _lacks_login(request):
        return await _on_http_error(request, Unauthorized())
    errors = [_as_member(each) for each in error.errors()]
    where = ", ".join(f"{each['in']} {each['pointer']}" for each in errors[:3])
    return problem_response(request, 422, f"the request is not valid: {where}", members={"errors": errors})


def _lacks_login(request: Request) -> bool:
    """Tell whether the endpoint has a security scheme and the request no ``Authorization``.

    FastAPI reads a JSON body before the dependencies run: a stranger's broken body would be answered
    before it is said that a login is needed.
    """
    dependant = getattr(request.scope.get("route"), "dependant", None)
    return dependant is not None and "authorization" not in request.headers and _asks_for_login(dependant)


def _asks_for_login(dependant: Dependant) -> bool:
    call: object = dependant.call
    return isinstance(call, SecurityBase) or any(map(_asks_for_login, dependant.dependencies))


def _as_member(error: Mapping[str, Any]) -> dict[str, str]:
    """Say where and what is wrong; never what was sent, which may be a secret."""
    place, *keys = error["loc"] or ("body",)
    return {
        "in": str(place),
        "pointer": _pointer(keys),
        "detail": str(error["msg"]).removeprefix("Value error, "),
        "code": str(error["type"]),
    }


def _pointer(keys: Sequence[object]) -> str:
    """Return the JSON pointer (RFC 6901) as a fragment: ``#/items/0/name``."""
    return "#" + "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)


async def _on_plugin_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, PluginError)
    status, members = problem_of(error)
    headers = {"Retry-After": str(error.fields["retry_after"])} if isinstance(error, ShareUsedUpError) else None
    return problem_response(request, status, str(error), headers=headers, members=members)


async def _on_integrity_error(request: Request, error: Exception) -> Response:
    logger.info("a constraint of the database refused a write: %s", _cause(error))
    return problem_response(request, 409, "this contradicts what is already stored; read it again and decide anew")


async def _on_stale_row(request: Request, _error: Exception) -> Response:
    return problem_response(request, 409, "somebody else changed this at the same time; read it again and retry")


async def _on_lost_race(request: Request, error: Exception) -> Response:
    return problem_response(request, 409, str(error), headers={"Retry-After": "1"})


async def _on_unstorable_value(request: Request, error: Exception) -> Response:
    return problem_response(request, 422, str(error))


async def _on_operational_error(request: Request, error: Exception) -> Response:
    """A lost race for a lock is the request's conflict; a database that is away, or a wrong statement, is ours."""
    if getattr(getattr(error, "orig", None), "sqlite_errorname", "") == "SQLITE_ERROR":
        raise error
    logger.warning("the database refused: %s", _cause(error))
    if is_lock_conflict(error):
        return problem_response(
            request, 409, "the same rows are being changed by another request; retry", headers={"Retry-After": "1"}
        )
    return problem_response(request, 503, "the database does not answer; retry later", headers={"Retry-After": "5"})


def is_lock_conflict(error: BaseException) -> bool:
    """Tell whether the database gave up on a lock: SQLite busy, or PostgreSQL deadlock, serialisation or lock wait."""
    cause = getattr(error, "orig", None)
    if getattr(cause, "sqlstate", None) in {"40001", "40P01", "55P03"}:
        return True
    return str(getattr(cause, "sqlite_errorname", "")).startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def _cause(error: Exception) -> str:
    """Return what the driver said, without the statement and its parameters (they hold users' values)."""
    cause = getattr(error, "orig", None) or error
    return f"{type(cause).__name__}: {str(cause).splitlines()[0] if str(cause) else ''}"


class UnforeseenErrors:
    """ASGI middleware: an exception that nobody caught is logged once and answered by a 500 problem without internals.

    Once the answer has begun it cannot be taken back: the exception goes on to the server, which
    closes the connection.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        has_begun = False

        async def observe(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self.app(scope, receive, observe)
        except Exception:
            if has_begun:
                raise
            logger.exception("%s %s failed", scope["method"], scope["path"])
            detail = "something went wrong on the server; quote the request id when you report it"
            await problem_response(Request(scope), 500, detail)(scope, receive, send)
