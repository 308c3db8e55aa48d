"""Where our route stands among the host's: after its explicit routes, before what catches all."""

from __future__ import annotations

import re

from fastapi import FastAPI
from starlette.routing import BaseRoute, Mount

from .claims import list_routes

_ANYTHING = re.compile(r"/?{[a-zA-Z_][a-zA-Z0-9_]*:path}")


def place(app: FastAPI, ours: list[BaseRoute]) -> None:
    """Put ``ours`` (side by side, in order) where they belong; leave them where that is so already."""
    routes = app.router.routes
    hosts = [route for route in routes if not _is_in(route, ours)]
    at = next((index for index, route in enumerate(hosts) if is_catch_all(route)), len(hosts))
    wanted = [*hosts[:at], *ours, *hosts[at:]]
    if len(wanted) != len(routes) or any(one is not other for one, other in zip(wanted, routes, strict=True)):
        routes[:] = wanted


def displace(app: FastAPI, ours: list[BaseRoute]) -> None:
    """Take ``ours`` out of the app, by identity: routes compare by value."""
    app.router.routes[:] = [route for route in app.router.routes if not _is_in(route, ours)]


def is_catch_all(route: BaseRoute) -> bool:
    """Tell whether ``route`` (or one inside an included router) answers for every path."""
    return any(path is not None and catches_all(listed, path) for listed, path in list_routes([route]))


def catches_all(route: BaseRoute, path: str) -> bool:
    if isinstance(route, Mount):
        return path == "" or path.startswith("/{")
    return _ANYTHING.fullmatch(path) is not None


def _is_in(route: BaseRoute, ours: list[BaseRoute]) -> bool:
    return any(route is one for one in ours)
