"""The plugin's own exception handlers, asked before those of the app, for the plugin's routes only."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

#: Where Starlette's exception middleware leaves (by class, by status) for the routes inside it.
_SCOPE_KEY = "starlette.exception_handlers"

Handler = Callable[[Any, Any], Any]
Handlers = tuple[Mapping[Any, Handler], Mapping[int, Handler]]


class PluginExceptionMiddleware:
    """Answers exceptions with the plugin's handlers, else with the app's.

    It sits inside the plugin's middleware, which therefore sees responses, as app middleware does.
    """

    def __init__(self, app: ASGIApp, handlers: Mapping[Any, Handler]) -> None:
        self.app = app
        self.own: Handlers = (
            {key: handler for key, handler in handlers.items() if not isinstance(key, int)},
            {key: handler for key, handler in handlers.items() if isinstance(key, int)},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        of_app: Handlers = scope.get(_SCOPE_KEY, ({}, {}))
        scope[_SCOPE_KEY] = self.own
        started = False

        async def watching(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watching)
        except Exception as error:
            handler = find_handler(self.own, error) or find_handler(of_app, error)
            if handler is None:
                raise
            if started:
                raise RuntimeError("Caught handled exception, but response already started.") from error
            await _answer(handler, error, scope, receive, watching)
        finally:
            scope[_SCOPE_KEY] = of_app


def find_handler(handlers: Handlers, error: Exception) -> Handler | None:
    """Return the handler for ``error``: by status first, then by the nearest class."""
    by_class, by_status = handlers
    if isinstance(error, HTTPException) and (handler := by_status.get(error.status_code)):
        return handler
    return next((by_class[kind] for kind in type(error).__mro__ if kind in by_class), None)


async def _answer(handler: Handler, error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
    connection = Request(scope, receive, send) if scope["type"] == "http" else WebSocket(scope, receive, send)
    if _is_async(handler):
        response = await handler(connection, error)
    else:
        response = await run_in_threadpool(handler, connection, error)
    if response is not None:
        await response(scope, receive, send)


def _is_async(handler: Callable[..., Any | Awaitable[Any]]) -> bool:
    while isinstance(handler, partial):
        handler = handler.func
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004
