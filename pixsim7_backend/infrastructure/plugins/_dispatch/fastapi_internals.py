"""The one place that touches FastAPI's private names, and the guard that says whether it may.

FastAPI builds the effective form of an included route behind private classes. Handing a request to
that form directly saves a second match and the walk over every router before it. Nothing here is
needed for correctness: where a name is missing, :func:`is_usable` says no and the platform uses the
public protocol of routes only.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from fastapi import routing
from fastapi.routing import APIRoute, APIRouter
from starlette.routing import BaseRoute, Host, Match, Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from .paths import ListedRoute, path_of, route_path

_private: Any = routing  # for the names that the module only imports

#: owner → what the fast variant reads or calls on it.
_NEEDED: dict[str, tuple[str, ...]] = {
    "": (
        "_EffectiveRouteContext",
        "_FrontendRouteGroup",
        "_IncludedRouter",
        "_RouterIncludeContext",
        "_apply_router_form_limits",
        "_join_frontend_paths",
        "_route_selected",
        "wrap_app_with_body_limit",
    ),
    "_IncludedRouter": (
        "_match",
        "effective_candidates",
        "effective_low_priority_routes",
        "effective_route_contexts",
    ),
    "_EffectiveRouteContext": ("matches", "url_path_for"),
    "APIRouter": ("_get_routes_version", "_mark_routes_changed"),
}
_NEEDED_FIELDS: dict[str, tuple[str, ...]] = {
    "_IncludedRouter": ("original_router", "include_context"),
    "_RouterIncludeContext": ("included_router", "prefix", "max_body_size", "form_limits"),
    "_EffectiveRouteContext": ("original_route", "starlette_route", "app", "path_format", "methods"),
}
_NEEDED_KEYS: dict[str, str] = {
    "_FASTAPI_SCOPE_KEY": "fastapi",
    "_FASTAPI_EFFECTIVE_ROUTE_CONTEXT_KEY": "effective_route_context",
    "_FASTAPI_INCLUDED_ROUTER_KEY": "included_router",
}
_TELEMETRY_KEY = "fastapi.telemetry"


def find_missing(module: object = routing) -> tuple[str, ...]:
    """Return the private names that the fast variant needs and this FastAPI does not have."""
    missing = []
    for owner, names in _NEEDED.items():
        holder = getattr(module, owner, None) if owner else module
        absent = [name for name in names if not callable(getattr(holder, name, None))]
        missing += [f"{owner}.{name}" if owner else name for name in absent]
    for owner, fields in _NEEDED_FIELDS.items():
        known = getattr(getattr(module, owner, None), "__dataclass_fields__", {})
        missing += [f"{owner}.{field}" for field in fields if field not in known]
    missing += [name for name, key in _NEEDED_KEYS.items() if getattr(module, name, None) != key]
    selected = getattr(module, "_route_selected", None)
    if callable(selected) and not {"scope", "path", "mount"} <= set(inspect.signature(selected).parameters):
        missing.append("_route_selected(scope, path, mount)")
    return tuple(missing)


#: Private names that are missing; empty with every FastAPI this package was tested with.
missing: tuple[str, ...] = find_missing()


def is_usable() -> bool:
    """Tell whether the fast variant may be used with the installed FastAPI."""
    return not missing


# --- looking at routers without building their routes ---------------------------------------------


def iter_routes(route: BaseRoute, prefix: str = "") -> Iterator[ListedRoute]:
    """List what ``route`` serves; included routers are opened, nothing effective is built."""
    if not isinstance(route, routing._IncludedRouter):
        yield ListedRoute(route, path_of(route, prefix))
        return
    if not has_standard_matching(route.original_router):
        yield ListedRoute(route, None)
        return
    inner = prefix + route.include_context.prefix
    for child in route.original_router.routes:
        yield from iter_routes(child, inner)


def iter_frontends(route: BaseRoute, prefix: str = "") -> Iterator[str]:
    """List the paths of the frontends of an included router."""
    if isinstance(route, routing._IncludedRouter):
        inner = prefix + route.include_context.prefix
        yield from frontends_of(route.original_router, inner)
        for child in route.original_router.routes:
            yield from iter_frontends(child, inner)


def frontends_of(router: APIRouter, prefix: str = "") -> Iterator[str]:
    """List the paths of the frontends that were added to ``router`` itself."""
    for group in router._low_priority_routes:
        if isinstance(group, routing._FrontendRouteGroup):
            yield from (routing._join_frontend_paths(prefix, frontend.path) for frontend in group.routes)


def iter_routers(route: BaseRoute) -> Iterator[APIRouter]:
    """List the router behind an included one and all routers inside it."""
    if isinstance(route, routing._IncludedRouter):
        yield route.original_router
        for child in route.original_router.routes:
            yield from iter_routers(child)


def has_standard_matching(router: APIRouter) -> bool:
    """Tell whether FastAPI's own matching decides for ``router`` (a subclass may have its own)."""
    kind = type(router)
    return kind.matches is APIRouter.matches and kind.handle is APIRouter.handle


def watch(router: APIRouter, on_change: Callable[[], None]) -> None:
    """Call ``on_change`` (held weakly, a bound method) after every later addition to ``router``."""
    watchers: list[weakref.WeakMethod[Callable[[], None]]] | None = getattr(router, "_pixsim7_watchers", None)
    if watchers is None:
        watchers = []
        router_ref = weakref.ref(router)

        def mark_routes_changed() -> None:
            if (changed := router_ref()) is not None:
                APIRouter._mark_routes_changed(changed)
            for watcher in tuple(watchers):
                if (call := watcher()) is not None:
                    call()

        setattr(router, "_pixsim7_watchers", watchers)  # noqa: B010 - not an attribute of the type
        setattr(router, "_mark_routes_changed", mark_routes_changed)  # noqa: B010 - shadows the method on purpose
    watchers[:] = [watcher for watcher in watchers if watcher() is not None]
    watchers.append(weakref.WeakMethod(on_change))


# --- the effective routes of an included router -----------------------------------------------------


class Effective(NamedTuple):
    """One effective route: how it matches, how it runs, and by what it is found."""

    path: str | None
    convertors: Mapping[str, Any]
    is_mount: bool
    name: str | None
    matches: Callable[[Scope], tuple[Match, Scope]]
    run: ASGIApp
    url_path_for: Callable[..., Any]
    route: BaseRoute
    context: Any


def iter_effective(route: BaseRoute, limits: Mapping[str, Any] | None = None) -> Iterator[Effective]:
    """Build the effective routes of an included router, in order, nested ones in their place."""
    assert isinstance(route, routing._IncludedRouter)
    if not has_standard_matching(route.original_router):
        yield Effective(None, {}, False, None, route.matches, route.handle, route.url_path_for, route, None)
        return
    merged = {**(limits or {}), **route.include_context.form_limits}
    for candidate in route.effective_candidates():
        if isinstance(candidate, routing._IncludedRouter):
            yield from iter_effective(candidate, merged)
        else:
            yield _effective(candidate, route, merged)


def _effective(
    context: routing._EffectiveRouteContext, included: routing._IncludedRouter, limits: Mapping[str, Any]
) -> Effective:
    original = context.original_route
    if isinstance(original, APIRoute):
        matches = _api_matches(context, original)
        run = _run_api(context, original, included, limits)
        standard = type(original).matches is APIRoute.matches
        path = context.path if standard else None
        return Effective(
            path, context.param_convertors, False, context.name, matches, run, context.url_path_for, original, context
        )
    served = context.starlette_route
    assert served is not None
    is_mount = isinstance(served, Mount)
    return Effective(
        path_of(served),
        getattr(served, "param_convertors", {}),
        is_mount,
        None if isinstance(served, (Mount, Host)) else getattr(served, "name", None),
        served.matches,
        _run_other(context, served, included, limits),
        served.url_path_for,
        original,
        context,
    )


def _api_matches(context: Any, original: APIRoute) -> Callable[[Scope], tuple[Match, Scope]]:
    """Match as FastAPI does for an included API route, with ``scope["route"]`` set."""
    if type(original).matches is not APIRoute.matches:
        return _custom_matches(context, original)
    regex, methods, endpoint = context.path_regex, context.methods, context.endpoint
    standard: Callable[[Scope], tuple[Match, Scope]] = context.matches
    if context.param_convertors:

        def matches(scope: Scope) -> tuple[Match, Scope]:
            match, child = standard(scope)
            if match is not Match.NONE:
                child["route"] = original
            return match, child

        return matches

    def matches_static(scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http" or not regex.match(route_path(scope)):
            return Match.NONE, {}
        child = {"endpoint": endpoint, "path_params": {**scope.get("path_params", {})}, "route": original}
        return (Match.FULL if not methods or scope["method"] in methods else Match.PARTIAL), child

    return matches_static


def _custom_matches(context: Any, original: APIRoute) -> Callable[[Scope], tuple[Match, Scope]]:
    """Ask a route class with a ``matches`` of its own, in the context of its inclusion."""

    def matches(scope: Scope) -> tuple[Match, Scope]:
        state = scope.setdefault("fastapi", {})
        before = state.get("effective_route_context")
        state["effective_route_context"] = context
        try:
            return original.matches(scope)
        finally:
            state["effective_route_context"] = before

    return matches


def _run_api(context: Any, original: APIRoute, included: Any, limits: Mapping[str, Any]) -> ASGIApp:
    """Run an effective API route with the scope that FastAPI would have prepared."""
    app, methods, path_format = context.app, context.methods, context.path_format
    plain = type(original).handle is APIRoute.handle
    form_limits: Any = dict(limits)

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        state = scope.setdefault("fastapi", {})
        state["included_router"] = included
        state["effective_route_context"] = context
        scope["route"] = original
        if form_limits:
            routing._apply_router_form_limits(scope, form_limits)
        if _TELEMETRY_KEY in scope:
            _private._route_selected(scope=scope, path=path_format)
        if plain and (not methods or scope["method"] in methods):
            await app(scope, receive, send)
        else:
            await original.handle(scope, receive, send)

    return run


def _run_other(context: Any, served: BaseRoute, included: Any, limits: Mapping[str, Any]) -> ASGIApp:
    """Run a WebSocket, mount, host or plain route with the scope that FastAPI would have prepared."""
    handle: ASGIApp = _private.wrap_app_with_body_limit(served.handle, included.include_context.max_body_size)
    path_format = getattr(served, "path_format", None) or context.path_format
    is_mount = isinstance(served, Mount)
    form_limits: Any = dict(limits)

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        state = scope.setdefault("fastapi", {})
        state["included_router"] = included
        state["effective_route_context"] = context
        if form_limits:
            routing._apply_router_form_limits(scope, form_limits)
        if _TELEMETRY_KEY in scope:
            _private._route_selected(scope=scope, path=path_format, mount=is_mount)
        await handle(scope, receive, send)

    return run
