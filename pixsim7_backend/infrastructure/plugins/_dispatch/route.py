"""The one route of ours inside ``app.router.routes``, in its all-public form."""

from __future__ import annotations

import threading
from collections.abc import Coroutine, Iterable, Mapping
from operator import is_not
from typing import Any, Self, cast

from fastapi import APIRouter, FastAPI
from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import Receive, Scope, Send

from pixsim7_backend.infrastructure.plugins._ledger.ownership import AppKey

from . import fastapi_internals
from .app_context import enter_app, leave_app
from .claims import list_routes
from .mount import PluginMount
from .paths import ListedRoute, route_path
from .position import displace, place
from .schema import OpenApi
from .snapshot import Snapshot

_SELECTED_KEY = "pixsim7.selected"
_NO_MATCH: tuple[Match, Scope] = (Match.NONE, {})


class PluginRoute(BaseRoute):
    """Hands requests over to the plugins that are published; one per app.

    What is published is one immutable snapshot behind one attribute. A request keeps the mount it
    was matched to, so that a plugin that is replaced meanwhile still answers it.
    """

    def __init__(self, app: FastAPI, app_key: AppKey | None) -> None:
        self.app = app
        self.snapshot = Snapshot()
        self._lock = threading.Lock()
        self._hosts: list[BaseRoute] | None = None
        self._app_key = app_key
        self._openapi = OpenApi(app, self)

    @classmethod
    def install(cls, app: FastAPI, app_key: AppKey | None = None) -> PluginRoute:
        """Put the route into ``app`` and return it; an app that has one keeps it (under the new key).

        ``app_key`` (``Owner.app`` of this app's plugins) is then ``current_app()`` in every request.
        """
        for route in app.router.routes:
            if isinstance(route, PluginRoute):
                route._stand()
                enter_app(app, app_key)
                return route
        return _variant()(app, app_key)._enter()

    def _enter(self) -> Self:
        self._stand()
        enter_app(self.app, self._app_key)
        self._openapi.install()
        return self

    def publish(self, mounts: Mapping[str, PluginMount]) -> None:
        """Serve exactly ``mounts`` from now on; their order is the registration order.

        The change is one attribute store. Requests under way are finished by the mounts that they
        were matched to (see :meth:`PluginMount.drain`).
        """
        with self._lock:
            before = self.snapshot
            after = before.with_mounts(mounts)
            for mount in after.order.keys() - before.order.keys():
                mount.on_change = self._mount_changed
            self._stand()
            self._store(after)
        for mount in before.order.keys() - after.order.keys():
            mount.on_change = None

    def uninstall(self) -> None:
        """Take the route and everything it set out of the app."""
        self.publish({})
        displace(self.app, self._ours())
        leave_app(self.app)
        self._openapi.uninstall()

    def _mount_changed(self, mount: PluginMount) -> None:
        with self._lock:
            if mount in self.snapshot.order:
                self._store(self.snapshot.reindexed(mount))

    def _store(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._openapi.forget()

    def _stand(self) -> None:
        """Go to the right place among the host's routes, if those changed since the last time."""
        routes = self.app.router.routes
        hosts = self._hosts
        if hosts is None or len(routes) != len(hosts) or any(map(is_not, routes, hosts)):
            place(self.app, self._ours())
            self._hosts = list(routes)

    def _ours(self) -> list[BaseRoute]:
        return [self]

    def host_routes(self) -> list[BaseRoute]:
        """Return the routes of the app that are not ours."""
        ours = self._ours()
        return [route for route in self.app.router.routes if not any(route is one for one in ours)]

    def list_host(self) -> tuple[ListedRoute, ...]:
        """List the routes of the host and its webhooks, as they are now."""
        return list_routes([*self.host_routes(), *self.app.webhooks.routes])

    def published(self) -> Iterable[PluginMount]:
        """Return what is published, in registration order."""
        for mount in self.snapshot.order:
            mount.refresh()
        return self.snapshot.order

    # --- the protocol of routes ---------------------------------------------------------------

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Find the first route that matches fully, else the first that matches but for the method."""
        path = route_path(scope)
        partial: tuple[Match, Scope] | None = None
        for mount in self.snapshot.candidates(path):
            for target in mount.find(path):
                match, child = target.matches(scope)
                if match is Match.NONE:
                    continue
                selected = match, {**child, _SELECTED_KEY: (mount, target.run)}
                if match is Match.FULL:
                    return selected
                partial = partial or selected
        return partial or _NO_MATCH

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """Let the selected mount serve the request, even when it is no longer published."""
        mount, run = scope.pop(_SELECTED_KEY)
        served: Coroutine[Any, Any, None] = mount.serve(run, scope, receive, send)
        return served

    def url_path_for(self, name: str, /, **path_params: Any) -> Any:
        """Return the path of the first plugin route of that name and those parameters.

        Raises:
            NoMatchFound: no published plugin has one.
        """
        for mount in self.snapshot.order:
            try:
                return mount.url_path_for(name, **path_params)
            except NoMatchFound:
                continue
        raise NoMatchFound(name, path_params)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self.snapshot.mounts)})"


class PublicPluginRoute(PluginRoute):
    """The variant that uses public names only.

    Beside the route stands one included router, which never matches: through it FastAPI finds the
    plugins' frontends, and ``get_openapi(routes=app.routes)`` the plugins' routes. Frontends of
    plugins that have middleware or exception handlers are left out, since nothing would wrap them.
    """

    def __init__(self, app: FastAPI, app_key: AppKey | None) -> None:
        self._listing = _include(app, [])
        super().__init__(app, app_key)

    def publish(self, mounts: Mapping[str, PluginMount]) -> None:
        """Serve exactly ``mounts`` from now on, with what was added to their routers since."""
        for mount in mounts.values():
            mount.refresh()
        super().publish(mounts)

    def _ours(self) -> list[BaseRoute]:
        return [self, self._listing]

    def _store(self, snapshot: Snapshot) -> None:
        listed = [route for mount in snapshot.order if not mount.has_stack for route in mount.routes]
        before, self._listing = self._listing, _include(self.app, listed)
        routes = self.app.router.routes
        for index, route in enumerate(routes):
            if route is before:
                routes[index] = self._listing
        self._hosts = list(routes)
        super()._store(snapshot)


class _ListingRouter(APIRouter):
    """Shows routes to those that list them, and never answers a request."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return _NO_MATCH


def _include(app: FastAPI, routes: list[BaseRoute]) -> BaseRoute:
    holder, listing = APIRouter(dependency_overrides_provider=app), _ListingRouter()
    holder.include_router(listing)
    listing.routes = routes  # only now: including looks at every route
    return holder.routes[0]


def _variant() -> type[PluginRoute]:
    if not fastapi_internals.is_usable():
        return PublicPluginRoute
    from .fast_route import FastPluginRoute  # its base class is a private name, looked up on import

    return cast("type[PluginRoute]", FastPluginRoute)
