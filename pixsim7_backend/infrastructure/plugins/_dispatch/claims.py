"""What a router claims: every method and path it would serve, read without serving anything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi.routing import APIRouter, RouteContext, iter_route_contexts
from starlette.routing import BaseRoute, Host, Mount, Route, WebSocketRoute

from pixsim7_backend.infrastructure.plugins._attribution.culprit import place_of

from . import fastapi_internals
from .paths import ListedRoute, path_of, shape_of

ANY_METHOD = "*"


@dataclass(frozen=True, slots=True)
class RouteClaim:
    """One method and path shape that a plugin (or the host) wants to serve.

    ``method`` is an HTTP method, ``WEBSOCKET``, ``MOUNT``, ``FRONTEND``, or ``*`` for a route that
    takes all HTTP methods. ``endpoint`` is the qualified name of what would answer, ``where`` its file and line.
    """

    method: str
    shape: str
    path: str
    endpoint: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.endpoint}, {self.where}" if self.where else self.endpoint


@dataclass(frozen=True, slots=True)
class Description:
    """What a plugin says that it serves, where its routes themselves cannot be asked: they run elsewhere."""

    claims: tuple[RouteClaim, ...]
    openapi: Mapping[str, Any]
    """``paths`` and ``components`` of its document."""


def list_routes(routes: Iterable[BaseRoute]) -> tuple[ListedRoute, ...]:
    """List the routes with their full paths, included routers opened."""
    if fastapi_internals.is_usable():
        return tuple(listed for route in routes for listed in fastapi_internals.iter_routes(route))
    contexts = iter_route_contexts(tuple(routes))
    return tuple(ListedRoute(context.original_route, public_path(context)) for context in contexts)


def same_routes(one: Sequence[ListedRoute], other: Sequence[ListedRoute]) -> bool:
    """Tell whether both list the same route objects under the same paths (routes compare by value)."""
    return len(one) == len(other) and all(
        left.route is right.route and left.path == right.path for left, right in zip(one, other, strict=True)
    )


def is_flat(router: APIRouter) -> bool:
    """Tell whether ``router`` matches as FastAPI's own do, and holds routes of known kinds only."""
    known = (Route, WebSocketRoute, Mount, Host)
    return fastapi_internals.has_standard_matching(router) and all(isinstance(it, known) for it in router.routes)


def public_path(context: RouteContext) -> str | None:
    """Return the full path that decides whether the route matches, or None when no path does."""
    original, path = context.original_route, context.path
    if path is None or path_of(original) is None:
        return None
    return path.rstrip("/") if isinstance(original, Mount) else path


def iter_claims(listed: Iterable[ListedRoute]) -> Iterator[RouteClaim]:
    """Turn listed routes into claims; routes that no path decides claim nothing but hosts."""
    for route, path in listed:
        if isinstance(route, Host):
            yield RouteClaim("HOST", route.host.lower(), route.host, name_of(route.app))
        elif path is not None:
            shape, endpoint = shape_of(path), _endpoint(route)
            name, where = name_of(endpoint), place_of(endpoint)
            for method in _methods(route):
                yield RouteClaim(method, shape, path, name, where)


def _methods(route: BaseRoute) -> list[str]:
    if isinstance(route, Mount):
        return ["MOUNT"]
    if isinstance(route, WebSocketRoute):
        return ["WEBSOCKET"]
    methods = getattr(route, "methods", None)
    return sorted(methods) if methods else [ANY_METHOD]


def _endpoint(route: BaseRoute) -> object:
    return route.app if isinstance(route, Mount) else getattr(route, "endpoint", route)


def name_of(endpoint: object) -> str:
    """Return the dotted name of a function, class or object, for people to find it."""
    named = endpoint if hasattr(endpoint, "__qualname__") else type(endpoint)
    return f"{getattr(named, '__module__', '')}.{getattr(named, '__qualname__', repr(named))}"
