"""The routes of one generation of one plugin, built aside and published as a whole."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from itertools import count
from time import perf_counter
from typing import Any

import anyio
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from starlette.middleware import Middleware
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.routing import BaseRoute, Match, Mount, NoMatchFound
from starlette.types import ASGIApp, Receive, Scope, Send

from pixsim7_backend.infrastructure.plugins._attribution.figures import RequestCounts
from pixsim7_backend.infrastructure.plugins._ledger.ownership import Entry, Owner, Running, running
from pixsim7_backend.infrastructure.plugins._limits.gate import Gate
from pixsim7_backend.infrastructure.plugins._limits.refusal import RefusedError

from . import fastapi_internals
from .claims import Description, RouteClaim, is_flat, iter_claims, list_routes, public_path, same_routes
from .exceptions import PluginExceptionMiddleware
from .exchange import LEFT, Exchange, HttpExchange, WebSocketExchange
from .paths import route_path, shortest, static_prefix
from .table import RouteTable, Target

Include = Callable[..., APIRouter]
"""Returns a router that includes those given, as the app would include those of the plugin."""

_RUN_KEY = "pixsim7.run"
_EXCEPTION_KEYS = (500, Exception)
#: Seconds that streams get to end once they are told to at the drain deadline.
_GRACE = 1.0


class PluginMount:
    """The routes of one generation of one plugin; immutable once published.

    Effective routes are built when the first request asks for them, or by :meth:`compile`, which
    may run in another thread. What the plugin adds to its routers later is served as well.
    """

    def __init__(
        self,
        owner: Owner,
        holder: APIRouter,
        routers: Sequence[APIRouter],
        *,
        stack: ASGIApp | None = None,
        include: Include | None = None,
        description: Description | None = None,
        prefix: str = "",
        is_confined: bool = False,
    ) -> None:
        self.owner = owner
        self.plugin_id = owner.plugin
        self.prefix = prefix
        """Put before every route; other plugins may have the same."""
        self.is_confined = is_confined
        self.lifespan_state: Mapping[str, Any] = {}
        """What the plugin's router lifespans yielded; merged into ``scope["state"]``."""
        self.on_change: Callable[[PluginMount], None] | None = None
        """Called after the plugin added to its routers; set by the route that serves this mount."""
        self.description = description
        """What it serves, where that cannot be read from its routes."""
        self.openapi_fragment: Any = None
        """What the schema remembers of this mount; dropped when the plugin adds routes."""
        self._as_plugin = Running(owner.app, owner, Entry.REQUEST)
        self.counts = RequestCounts()
        """What its requests come to; the manager puts those of the plugin here, which generations share."""
        self.gate: Gate | None = None
        """What a request passes before it is served, where the plugin has limits; set by the manager."""
        self._holder = holder
        self._routers = tuple(routers)
        self._stack = stack
        self._include = include
        self._lock = threading.Lock()
        self._table: RouteTable | None = None
        self._claims: tuple[RouteClaim, ...] | None = None
        self._served: set[Exchange] = set()
        self._at_gate = 0
        self.ends_streams = False
        """The plugin leaves: event streams and WebSockets, also those still to come, are to end."""
        self._idle: anyio.Event | None = None
        self._watched: set[int] = set()
        self._is_fast = fastapi_internals.is_usable()
        self.routes_changed()

    # --- what it would serve ------------------------------------------------------------------

    @property
    def routes(self) -> list[BaseRoute]:
        """The plugin's routers as FastAPI included them."""
        return self._holder.routes

    @property
    def lifespan_context(self) -> Any:
        """The merged lifespan of the plugin's routers, to be entered with the app."""
        return self._holder.lifespan_context

    @property
    def has_stack(self) -> bool:
        """Whether middleware or exception handlers of the plugin wrap its routes."""
        return self._stack is not None

    def iter_routes(self) -> Iterator[RouteClaim]:
        """Yield every method and path that this mount wants to serve, in registration order."""
        if self._claims is None and self.description is not None:
            self._claims = self.description.claims
        if self._claims is None:
            frontends = (
                RouteClaim("FRONTEND", path, path, f"frontend of {self.plugin_id}") for path in self.frontend_paths
            )
            self._claims = (*iter_claims(self._listed), *frontends)
        yield from self._claims

    @property
    def endpoints(self) -> int:
        """How many endpoints it has, told apart by name."""
        return len({claim.endpoint for claim in self.iter_routes()})

    def routes_changed(self) -> None:
        """Read the routers again: the plugin added to them (or this is the first time)."""
        self._listed = list_routes(self._holder.routes)
        self._claims = None
        self.prefixes = shortest("" if path is None else static_prefix(path) for _, path in self._listed)
        self._names = frozenset(getattr(route, "name", None) for route, path in self._listed if path is not None)
        self._names_open = any(path is None or hasattr(route, "routes") for route, path in self._listed)
        self.frontend_paths: tuple[str, ...] = ()
        if self._is_fast:
            self._watch_routers()
            routes = self._holder.routes
            self.frontend_paths = tuple(path for route in routes for path in fastapi_internals.iter_frontends(route))
        with self._lock:
            self._table = None
            self.openapi_fragment = None
        if self.on_change is not None:
            self.on_change(self)

    def refresh(self) -> None:
        """Notice what the plugin added to its routers, where additions are not announced."""
        if not self._is_fast and not same_routes(self._listed, list_routes(self._holder.routes)):
            self.routes_changed()

    def _watch_routers(self) -> None:
        for held in self._holder.routes:
            for router in fastapi_internals.iter_routers(held):
                if id(router) not in self._watched:
                    self._watched.add(id(router))
                    fastapi_internals.watch(router, self.routes_changed)

    def compile(self) -> RouteTable:
        """Build the effective routes now, so that no request has to; safe from any thread."""
        with self._lock:
            if self._table is None:
                routes = self._holder.routes
                if self._is_fast:
                    targets = _fast_targets(routes)
                else:
                    targets = _public_targets(self._routers, routes, self._include)
                self._table = RouteTable(targets)
            return self._table

    # --- serving ------------------------------------------------------------------------------

    def find(self, path: str) -> Sequence[Target]:
        """Return every target that may serve ``path``, in registration order."""
        return (self._table or self.compile()).find(path)

    def url_path_for(self, name: str, /, **params: Any) -> Any:
        """Return the path of the first route of that name and those parameters.

        Raises:
            NoMatchFound: none of the plugin's routes has this name with these parameters.
        """
        if name not in self._names and not self._names_open:
            raise NoMatchFound(name, params)
        return (self._table or self.compile()).url_path_for(name, **params)

    async def serve(self, run: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request of this plugin: owned, counted, inside the plugin's middleware.

        Raises:
            RefusedError: it is beyond a limit of the plugin, which has seen nothing of it.
            WebSocketException: the same of a WebSocket, where the server knows no other answer.
        """
        if self.gate is not None:
            send = await self._pass(self.gate, scope, send)
        started, counts = perf_counter(), self.counts
        kind = HttpExchange if scope["type"] == "http" else WebSocketExchange
        exchange = kind(self, scope, receive, send)
        self._served.add(exchange)
        token = running.set(self._as_plugin)
        try:
            if self.lifespan_state:
                self._merge_state(scope)
            try:
                if self._stack is None:
                    code = run(scope, exchange.receive, exchange.send)
                else:
                    scope[_RUN_KEY] = run
                    code = self._stack(scope, exchange.receive, exchange.send)
                if counts.untimed and kind is HttpExchange:
                    counts.untimed -= 1
                else:
                    code = counts.timed(code, may_sample=kind is HttpExchange)
                await code
            except LEFT:
                if not exchange.is_ending:
                    raise
            if exchange.is_ending:
                with suppress(OSError):  # its client has left meanwhile
                    await exchange.finish()
        except Exception as error:
            exchange.note_failure(error, counts)
            raise
        finally:
            running.reset(token)
            self._served.discard(exchange)
            exchange.count(counts, started)
            if self._idle is not None:
                self._note_idle()

    async def _pass(self, gate: Gate, scope: Scope, send: Send) -> Send:
        self._at_gate += 1
        try:
            return await gate.admit(scope, send, self)
        except RefusedError as refusal:
            self.counts.refused[refusal.limit] += 1
            raise refusal.answer_to(scope) from None
        finally:
            self._at_gate -= 1
            self._note_idle()

    def wrap(self, run: ASGIApp) -> ASGIApp:
        """Return ``run`` as an application of this plugin (see :meth:`serve`)."""

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            await self.serve(run, scope, receive, send)

        return serve

    def _merge_state(self, scope: Scope) -> None:
        # The server hands every request its own copy; what the host put there wins, as it does
        # where FastAPI merges the lifespan of an included router.
        state = scope.setdefault("state", {})
        for name, value in self.lifespan_state.items():
            state.setdefault(name, value)

    # --- leaving ------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """How many requests and WebSockets this mount is serving now."""
        return len(self._served)

    async def drain(self, deadline: float, *, end_streams: bool = False) -> tuple[str, ...]:
        """Wait until nothing is in flight, at most ``deadline`` seconds; what still streams then is told to end.

        With ``end_streams``, event streams and WebSockets are told at once: they have no end of their
        own, and their clients come again. Other responses are never cut before the deadline, streamed
        ones neither: half of one would look whole.

        Returns:
            The requests that were not answered in full, like ``"GET /api/v1/game/map"``.
        """
        if end_streams:
            self.ends_streams = True
            self._end(exchange for exchange in self._served if exchange.is_endless)
        await self._wait_until_idle(deadline)
        late = [exchange for exchange in self._served if exchange.is_open]
        self._end(late)
        if late:
            await self._wait_until_idle(_GRACE)
        cut = (exchange for exchange in late if exchange.is_open and not exchange.is_endless)
        return tuple(exchange.name for exchange in self._served.union(cut))

    def _end(self, exchanges: Iterable[Exchange]) -> None:
        for exchange in tuple(exchanges):
            exchange.end()

    def _note_idle(self) -> None:
        if self._idle is not None and not self._served:
            self._idle.set()
            self._idle = None

    async def _wait_until_idle(self, limit: float) -> None:
        with anyio.move_on_after(limit):
            while self._served or self._at_gate:
                idle = self._idle = self._idle or anyio.Event()
                await idle.wait()

    def __repr__(self) -> str:
        return f"PluginMount({self.plugin_id!r}, generation={self.owner.generation})"


def build_mount(
    app: FastAPI,
    *,
    owner: Owner,
    routers: Sequence[APIRouter],
    prefix: str,
    tags: Sequence[str],
    middleware: Sequence[Middleware] = (),
    exception_handlers: Mapping[Any, Callable[..., Any]] | None = None,
    description: Description | None = None,
    is_confined: bool = False,
) -> PluginMount:
    """Build the routes of one plugin aside; nothing is served before the mount is published.

    The routers get what ``app.include_router(router, prefix=prefix, tags=tags)`` would give them:
    the app's dependencies, responses, response class, limits and dependency overrides.
    ``middleware`` (first is outermost) and ``exception_handlers`` (by status or class, asked before
    the app's) wrap the plugin's routes only. ``description`` says what is served where the routes cannot be asked.

    Raises:
        FastAPIError: a route has neither prefix nor path.
        AssertionError: the prefix does not start with a slash, or ends with one.
    """

    def include(*included: APIRouter) -> APIRouter:
        holder = _holder_like(app.router)
        for router in included:
            holder.include_router(router, prefix=prefix, tags=list(tags))
        return holder

    stack = _build_stack(app, middleware, exception_handlers or {})
    return PluginMount(
        owner,
        include(*routers),
        routers,
        stack=stack,
        include=include,
        description=description,
        prefix=prefix,
        is_confined=is_confined,
    )


def _holder_like(router: APIRouter) -> APIRouter:
    """Return an empty router that passes on to included ones what ``router`` would."""
    return APIRouter(
        prefix=router.prefix,
        tags=list(router.tags),
        dependencies=list(router.dependencies),
        default_response_class=router.default_response_class,
        responses=dict(router.responses),
        callbacks=list(router.callbacks),
        deprecated=router.deprecated,
        include_in_schema=router.include_in_schema,
        generate_unique_id_function=router.generate_unique_id_function,
        strict_content_type=router.strict_content_type,
        max_body_size=router.max_body_size,
        dependency_overrides_provider=router.dependency_overrides_provider,
    )


def _build_stack(
    app: FastAPI, middleware: Sequence[Middleware], handlers: Mapping[Any, Callable[..., Any]]
) -> ASGIApp | None:
    if not middleware and not handlers:
        return None
    stack: ASGIApp = _run_selected
    stack = PluginExceptionMiddleware(
        stack, {key: handler for key, handler in handlers.items() if key not in _EXCEPTION_KEYS}
    )
    for cls, args, kwargs in reversed(middleware):
        stack = cls(stack, *args, **kwargs)
    last_resort = next((handlers[key] for key in _EXCEPTION_KEYS if key in handlers), None)
    if last_resort is not None:
        stack = ServerErrorMiddleware(stack, handler=last_resort, debug=app.debug)
    return stack


async def _run_selected(scope: Scope, receive: Receive, send: Send) -> None:
    await scope.pop(_RUN_KEY)(scope, receive, send)


def _fast_targets(routes: Iterable[BaseRoute]) -> Iterator[Target]:
    """Yield one target per effective route, run directly."""
    effective = (route for included in routes for route in fastapi_internals.iter_effective(included))
    for order, it in enumerate(effective):
        yield Target(
            order, it.matches, it.run, it.url_path_for, it.name, it.path, dict(it.convertors), it.is_mount, it.route,
            it.context,
        )  # fmt: skip


def _public_targets(
    routers: Iterable[APIRouter], routes: Iterable[BaseRoute], include: Include | None
) -> Iterator[Target]:
    """Yield the routes that a path decides, each run by an included router, then its own router as a whole.

    The included router selects again, so that the answer is always FastAPI's; it is a copy that holds
    this one route, which spares it to look at the others. Asked last, the whole one also knows what was
    added since. Routers with others inside are only asked as a whole: one of those may have its own way
    of matching, which no public name tells.
    """
    order = count()
    for router, included in zip(routers, routes, strict=True):
        for context in iter_route_contexts([included]) if is_flat(router) else ():
            original: BaseRoute = context.original_route
            if (path := public_path(context)) is not None:
                is_mount = isinstance(original, Mount)
                alone = include(_only(router, original)).routes[0] if include else included
                yield Target(
                    next(order), _match_only(context), alone.handle, context.url_path_for,
                    None if is_mount else context.name, path, context.param_convertors, is_mount, original, None,
                )  # fmt: skip
        yield Target(
            next(order), included.matches, included.handle, included.url_path_for, None, None, {}, False, included, None
        )


def _only(router: APIRouter, route: BaseRoute) -> APIRouter:
    """Return a copy of ``router`` with everything that it has, but one route only."""
    alone = copy(router)
    alone.routes = [route]
    return alone


def _match_only(context: RouteContext) -> Callable[[Scope], tuple[Match, Scope]]:
    """Return what tells whether the route matches; its router finds the parameters when it runs."""
    effective: Callable[[Scope], tuple[Match, Scope]] = context.matches
    expression = getattr(context, "path_regex", None)
    if not isinstance(context.original_route, APIRoute) or expression is None:
        return lambda scope: (effective(scope)[0], {})
    path, methods = public_path(context), context.methods or ()
    is_fixed = path is not None and "{" not in path
    fits = frozenset((path, f"{path}\n")).__contains__ if is_fixed else expression.match

    def matches(scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http" or not fits(route_path(scope)):
            return Match.NONE, {}
        return (Match.FULL if not methods or scope["method"] in methods else Match.PARTIAL), {}

    return matches
