"""Our route as FastAPI knows included routers: frontends, schema listings and labels work through it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, FastAPI, routing
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from pixsim7_backend.infrastructure.plugins._ledger.ownership import AppKey

from .mount import PluginMount
from .paths import route_path
from .route import PluginRoute
from .snapshot import Snapshot


class FastPluginRoute(PluginRoute, routing._IncludedRouter):
    """The variant that hands over to FastAPI's effective routes directly."""

    __hash__ = object.__hash__

    def __init__(self, app: FastAPI, app_key: AppKey | None) -> None:
        anchor = APIRouter()
        routing._IncludedRouter.__init__(
            self, original_router=anchor, include_context=routing._RouterIncludeContext(included_router=anchor)
        )
        PluginRoute.__init__(self, app, app_key)
        self._frontends: list[Any] = []

    def __eq__(self, other: object) -> bool:
        return self is other

    def _store(self, snapshot: Snapshot) -> None:
        self._frontends = [route for mount in snapshot.order if mount.frontend_paths for route in _frontends(mount)]
        super()._store(snapshot)
        self.original_router._mark_routes_changed()

    # --- what FastAPI asks included routers ---------------------------------------------------

    def effective_low_priority_routes(self) -> list[Any]:
        """Return the frontends of all plugins; FastAPI asks them after every ordinary route."""
        return self._frontends

    def effective_route_contexts(self) -> Iterator[Any]:
        """Yield the effective routes of all plugins, for whoever lists ``app.routes``."""
        for mount in self.snapshot.order:
            for included in mount.routes:
                assert isinstance(included, routing._IncludedRouter)
                yield from included.effective_route_contexts()

    def _match(self, scope: Scope) -> tuple[Match, Scope, BaseRoute | None, Any]:
        """Say which route would match: FastAPI labels redirects with it."""
        path = route_path(scope)
        for mount in self.snapshot.candidates(path):
            for target in mount.find(path):
                match, child = target.matches(scope)
                if match is not Match.NONE:
                    return match, child, target.route, target.context
        return Match.NONE, {}, None, None


def _frontends(mount: PluginMount) -> Iterator[Any]:
    for included in mount.routes:
        assert isinstance(included, routing._IncludedRouter)
        for context in included.effective_low_priority_routes():
            owned = copy.copy(context)
            assert context.app is not None
            owned.app = mount.wrap(context.app)
            yield owned
