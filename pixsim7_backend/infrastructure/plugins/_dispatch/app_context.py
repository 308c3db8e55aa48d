"""Tells which app's code is running, for every request of the app, the host's own included."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from pixsim7_backend.infrastructure.plugins._ledger.ownership import AppKey, Entry, Running, running


class AppContext:
    """Marks what the app's router runs as code of this app."""

    __slots__ = ("app", "host")

    def __init__(self, app: ASGIApp, app_key: AppKey | None) -> None:
        self.app = app
        self.host = Running(app_key, None, Entry.HOST)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = running.set(self.host)
        try:
            await self.app(scope, receive, send)
        finally:
            running.reset(token)


def enter_app(app: FastAPI, app_key: AppKey | None) -> None:
    """Mark everything that the router of ``app`` runs as code of the app ``app_key``."""
    present = _find_context(app)
    if present is None:
        _set_stack(app, AppContext(app.router.middleware_stack, app_key))
    else:
        present.host = Running(app_key, None, Entry.HOST)


def leave_app(app: FastAPI) -> None:
    """Undo :func:`enter_app`; where somebody wrapped the router since, the key is cleared instead."""
    present = _find_context(app)
    if present is not None and app.router.middleware_stack == present:
        _set_stack(app, present.app)
    elif present is not None:
        present.host = Running(None, None, Entry.HOST)


def _find_context(app: FastAPI) -> AppContext | None:
    stack: Any = app.router.middleware_stack
    while stack is not None and not isinstance(stack, AppContext):
        stack = getattr(stack, "app", None)
    return stack


def _set_stack(app: FastAPI, stack: ASGIApp) -> None:
    router: Any = app.router  # the attribute is typed as the bound method that it starts as
    router.middleware_stack = stack
