"""What plugin code adds to the app behind the platform's back, put on its ledger all the same.

``app.state`` keys are seen as they are written; routes added to the app and logging handlers are
seen by comparing before and after a hook. App-wide middleware and exception handlers, which a running
app refuses or ignores, are refused here with the plugin's own way shown.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import State
from starlette.routing import BaseRoute

from ._ownership import Owner, current_owner
from .errors import AppWideRegistrationError

_MISSING = object()
_APP_WIDE = {
    "add_middleware": "`middleware = [Middleware(...)]`",
    "middleware": "`middleware = [Middleware(...)]`",
    "add_exception_handler": "`exception_handlers = {SomeError: handler}`",
    "exception_handler": "`exception_handlers = {SomeError: handler}`",
}


class OwnedState(State):
    """An ``app.state`` that knows which plugin wrote which key, and takes it back with the plugin."""

    def __setattr__(self, key: Any, value: Any) -> None:
        self[key] = value

    def __setitem__(self, key: str, value: Any) -> None:
        owner = current_owner()
        if owner is not None:
            self._record(owner, key, value)
        super().__setitem__(key, value)

    def _record(self, owner: Owner, key: str, value: Any) -> None:
        name = f"app.state.{key}"
        for entry in owner.ledger.entries:
            if entry.kind == "state" and entry.name == name:
                owner.ledger.discard(entry)
        before = self._state.get(key, _MISSING)

        def restore() -> None:
            if self._state.get(key, _MISSING) is not value:
                return  # somebody else's by now
            if before is _MISSING:
                del self._state[key]
            else:
                self._state[key] = before

        owner.ledger.add("state", name, restore)


def own_state(app: FastAPI) -> None:
    """Make ``app.state`` record its writers; what it holds, and who else holds it, stays as it is."""
    if not isinstance(app.state, OwnedState):
        app.state = OwnedState(app.state._state)  # shared, so that older references see the same keys


@contextmanager
def recording(app: FastAPI, owner: Owner) -> Iterator[None]:
    """Record the routes and logging handlers that the code inside adds, for ``owner``.

    They are recorded too when it raises, so that a failed hook can be undone.
    """
    routes = list(app.router.routes)
    lifespan = app.router.lifespan_context
    handlers = _logging_handlers()
    try:
        with _no_app_wide_registrations(app, owner):
            yield
    finally:
        _record_routes(app, owner, routes, lifespan)
        for logger_name, handler in _logging_handlers() - handlers:
            _record_handler(owner, logger_name, handler)


def _record_routes(app: FastAPI, owner: Owner, before: list[BaseRoute], lifespan: Any) -> None:
    known = {id(route) for route in before}
    for route in [route for route in app.router.routes if id(route) not in known]:
        path = getattr(route, "path", None) or getattr(getattr(route, "include_context", None), "prefix", "")
        owner.ledger.add("route", str(path), _route_remover(app, route))
    app.router.lifespan_context = lifespan  # including a router chains its lifespan for good


def _route_remover(app: FastAPI, route: BaseRoute) -> Callable[[], None]:
    def remove() -> None:
        app.router.routes[:] = [kept for kept in app.router.routes if kept is not route]
        app.openapi_schema = None

    return remove


def _logging_handlers() -> set[tuple[str, logging.Handler]]:
    loggers = [logging.root, *(x for x in logging.root.manager.loggerDict.values() if isinstance(x, logging.Logger))]
    return {(logger.name, handler) for logger in loggers for handler in logger.handlers}


def _record_handler(owner: Owner, logger_name: str, handler: logging.Handler) -> None:
    def remove() -> None:
        name = "" if logger_name == "root" else logger_name
        logging.getLogger(name).removeHandler(handler)
        handler.close()

    owner.ledger.add("logging handler", f"{type(handler).__name__} of {logger_name}", remove)


@contextmanager
def _no_app_wide_registrations(app: FastAPI, owner: Owner) -> Iterator[None]:
    for call, instead in _APP_WIDE.items():
        setattr(app, call, _refuse(owner, call, instead))
    try:
        yield
    finally:
        for call in _APP_WIDE:
            app.__dict__.pop(call, None)


def _refuse(owner: Owner, call: str, instead: str) -> Callable[..., Any]:
    def refuse(*_args: Any, **_options: Any) -> Any:
        raise AppWideRegistrationError(plugin=owner.plugin, call=call, instead=instead)

    return refuse
