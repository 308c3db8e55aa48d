"""What HTTP says about the platform's errors: problem details (RFC 9457)."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from pixsim7_backend.infrastructure.plugins.errors import (
    NoSettingsError,
    PluginError,
    PluginNotFoundError,
    PluginSettingsError,
    ShareUsedUpError,
    StateConflictError,
    StateUnavailableError,
)

MEDIA_TYPE = "application/problem+json"


def problem_of(error: PluginError) -> tuple[int, dict[str, Any]]:
    """Return the status, and the members of the problem besides the standard ones: ``plugin`` and ``error``.

    404: there is no such plugin, or it has no settings. 412: its record has another version than
    ``If-Match`` names. 422: settings that do not fit. 503: the desired state cannot be reached, or a
    plugin's share of the minute is used up, which is not this client's doing. 409: all else, which the present
    state of things forbids.
    """
    status = HTTPStatus.CONFLICT
    if isinstance(error, (PluginNotFoundError, NoSettingsError)):
        status = HTTPStatus.NOT_FOUND
    elif isinstance(error, StateConflictError) and error.plugin:
        status = HTTPStatus.PRECONDITION_FAILED
    elif isinstance(error, PluginSettingsError):
        status = HTTPStatus.UNPROCESSABLE_ENTITY
    elif isinstance(error, (StateUnavailableError, ShareUsedUpError)):
        status = HTTPStatus.SERVICE_UNAVAILABLE
    return status, {"plugin": error.plugin, "error": error.to_json()}


class ProblemRoute(APIRoute):
    """Answers the platform's errors as problems in hosts that have no handler for them."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def answer_or_problem(request: Request) -> Response:
            try:
                return await answer(request)
            except PluginError as error:
                if PluginError in request.app.exception_handlers:
                    raise
                status, members = problem_of(error)
                content = {
                    **members,
                    "type": "about:blank",
                    "title": HTTPStatus(status).phrase,
                    "status": status,
                    "detail": str(error),
                    "instance": request.scope["path"],
                }
                return JSONResponse(content, status, media_type=MEDIA_TYPE)

        return answer_or_problem
