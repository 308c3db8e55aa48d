"""What plugin code adds to the app behind the platform's back, put on its ledger all the same.

``app.state`` keys are seen as they are written; routes added to the app and logging handlers are
seen by comparing before and after a hook. App-wide middleware and exception handlers, which a running
app refuses or ignores, are refused here with the plugin's own way shown.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import State
from starlette.routing import BaseRoute

from pixsim7_backend.infrastructure.plugins.errors import AppWideRegistrationError

from .ownership import Owner, current_owner

_MISSING = object()
_APP_WIDE = {
    "add_middleware": "`middleware = [Middleware(...)]`",
    "middleware": "`middleware = [Middleware(...)]`",
    "add_exception_handler": "`exception_handlers = {SomeError: handler}`",
    "exception_handler": "`exception_handlers = {SomeError: handler}`",
}


@dataclass(frozen=True, slots=True)
class _Claim:
    """Whose a key of ``app.state`` is, and what it was before anything of that plugin."""

    owner: Owner
    value: Any
    before: Any


class OwnedState(State):
    """An ``app.state`` that knows which plugin wrote which key, and takes it back with the plugin.

    A newer generation takes a key over from the older one; what the host writes is the host's.
    """

    _claims: dict[str, _Claim]

    def __init__(self, state: dict[str, Any]) -> None:
        super().__init__(state)
        object.__setattr__(self, "_claims", {})

    def __setattr__(self, key: Any, value: Any) -> None:
        self[key] = value

    def __setitem__(self, key: str, value: Any) -> None:
        owner = current_owner()
        if owner is None:
            self._claims.pop(key, None)
            super().__setitem__(key, value)
            return
        if owner.ledger.stage is not None:
            owner.ledger.stage.state[key] = value
        owner.ledger.when_live(lambda: self._claim(owner, key, value))

    def __getattr__(self, key: Any) -> Any:
        staged = _staged(key)
        return super().__getattr__(key) if staged is _MISSING else staged

    def __getitem__(self, key: str) -> Any:
        staged = _staged(key)
        return super().__getitem__(key) if staged is _MISSING else staged

    def _claim(self, owner: Owner, key: str, value: Any) -> None:
        known = self._claims.get(key)
        before = self._state.get(key, _MISSING)
        if known is not None and known.owner.plugin == owner.plugin:
            before = known.before
        if known is None or known.owner is not owner:
            owner.ledger.add("state", f"app.state.{key}", lambda: self._give_back(owner, key))
        self._claims[key] = _Claim(owner, value, before)
        super().__setitem__(key, value)

    def _give_back(self, owner: Owner, key: str) -> None:
        claim = self._claims.get(key)
        if claim is None or claim.owner is not owner:
            return  # somebody else's by now
        del self._claims[key]
        if claim.before is _MISSING:
            self._state.pop(key, None)
        else:
            self._state[key] = claim.before


def _staged(key: str) -> Any:
    owner = current_owner()
    if owner is None or owner.ledger.stage is None:
        return _MISSING
    return owner.ledger.stage.state.get(key, _MISSING)


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
    added = [route for route in app.router.routes if id(route) not in known]
    app.router.lifespan_context = lifespan  # including a router chains its lifespan for good
    if not added:
        return
    _remove(app, added)
    for route in added:
        path = getattr(route, "path", None) or getattr(getattr(route, "include_context", None), "prefix", "")
        owner.ledger.add("route", str(path), partial(_remove, app, [route]))
    owner.ledger.when_live(lambda: app.router.routes.extend(added))


def _remove(app: FastAPI, routes: list[BaseRoute]) -> None:
    """Take these very routes out; ``routes.remove`` would compare by value."""
    gone = {id(route) for route in routes}
    app.router.routes[:] = [route for route in app.router.routes if id(route) not in gone]
    app.openapi_schema = None


def _logging_handlers() -> set[tuple[str, logging.Handler]]:
    known = list(logging.root.manager.loggerDict.values())  # at once: other threads may add loggers meanwhile
    loggers = [logging.root, *(each for each in known if isinstance(each, logging.Logger))]
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
