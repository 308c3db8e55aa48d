"""What a path says before any request: its shape, its static start, the part that routes look at."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.routing import BaseRoute, Host, Mount, Route, WebSocketRoute
from starlette.types import Scope

PARAMETER = re.compile(r"{([a-zA-Z_][a-zA-Z0-9_]*)(?::([a-zA-Z_][a-zA-Z0-9_]*))?}")


def route_path(scope: Scope) -> str:
    """Return the path that routes match: without the root path, as Starlette cuts it."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if not root or not path.startswith(root):
        return path
    rest = path[len(root) :]
    return rest if not rest or rest[0] == "/" else path


def shape_of(path: str) -> str:
    """Replace every parameter by its convertor: two paths of one shape match the same requests.

    >>> shape_of("/npcs/{npc_id:int}/items/{item}")
    '/npcs/{int}/items/{str}'
    """
    return PARAMETER.sub(lambda found: f"{{{found[2] or 'str'}}}", path)


def static_prefix(path: str) -> str:
    """Return the leading segments without parameters.

    >>> static_prefix("/game/npcs/{npc_id}/items")
    '/game/npcs'
    """
    start = path.find("{")
    return path if start < 0 else path[: path.rindex("/", 0, start)] if "/" in path[:start] else ""


def shortest(prefixes: Iterable[str]) -> tuple[str, ...]:
    """Drop every prefix that lies below another one.

    >>> shortest(["/a/b", "/a", "/ab"])
    ('/a', '/ab')
    """
    kept: set[str] = set()
    for prefix in sorted(set(prefixes), key=len):
        if not kept or not any(above in kept for above in _above(prefix)):
            kept.add(prefix)
    return tuple(sorted(kept))


def _above(prefix: str) -> Iterable[str]:
    cut = prefix.rfind("/")
    while cut >= 0:
        yield prefix[:cut]
        cut = prefix.rfind("/", 0, cut)


class ListedRoute(NamedTuple):
    """A route as its author wrote it, and the full path under which it is served.

    ``path`` is None where the path does not decide: hosts, unknown routes, routes that match in
    their own way.
    """

    route: BaseRoute
    path: str | None


_STANDARD_MATCHES = {kind.matches for kind in (APIRoute, APIWebSocketRoute, Route, WebSocketRoute, Mount)}


def path_of(route: BaseRoute, prefix: str = "") -> str | None:
    """Return the full path that decides whether ``route`` matches, or None when no path does."""
    path = getattr(route, "path", None)
    if path is None or isinstance(route, Host) or type(route).matches not in _STANDARD_MATCHES:
        return None
    full = f"{prefix}{path}"
    return full.rstrip("/") if isinstance(route, Mount) else full
