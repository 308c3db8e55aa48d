"""Two that claim the same method and path, or the middle of somebody else's: found before anything is served."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI
from starlette.routing import BaseRoute

from pixsim7_backend.infrastructure.plugins.errors import PluginError, RouteConflictError, TrespassError

from . import fastapi_internals
from .claims import ANY_METHOD, RouteClaim, iter_claims, list_routes
from .mount import PluginMount
from .position import catches_all
from .route import PluginRoute
from .territory import RESERVED, Territories

_NOT_HTTP = {"WEBSOCKET", "MOUNT", "FRONTEND", "HOST"}
_HOST = "the host app"


class _Register:
    """Who serves which method of which path shape."""

    def __init__(self) -> None:
        self._owners: dict[str, dict[str, tuple[str, RouteClaim]]] = {}

    def find(self, claim: RouteClaim) -> tuple[str, RouteClaim] | None:
        """Return who already serves what ``claim`` wants."""
        methods = self._owners.get(claim.shape)
        if not methods:
            return None
        if claim.method in methods or claim.method in _NOT_HTTP:
            return methods.get(claim.method)
        if claim.method == ANY_METHOD:
            return next((owner for method, owner in methods.items() if method not in _NOT_HTTP), None)
        return methods.get(ANY_METHOD)

    def add(self, owner: str, claim: RouteClaim) -> None:
        self._owners.setdefault(claim.shape, {}).setdefault(claim.method, (owner, claim))


def find_conflicts(app: FastAPI, mounts: Sequence[PluginMount]) -> list[PluginError]:
    """Return an error for every method and path shape that is claimed twice, and for each trespass.

    ``mounts`` are in load order: the later one fails, and what it claims is then free for those
    after it. The host's explicit routes win over every plugin, and those of trusted plugins over all of
    confined ones, which moreover keep out of the directories of others. Else paths that merely overlap,
    like ``/a/{x}`` and ``/a/b``, are decided by registration order and are no conflict.
    """
    register, territories = _Register(), Territories()
    host = _host_claims(app)
    for claim in host:
        register.add(_HOST, claim)
    is_guarded = any(mount.is_confined for mount in mounts)
    if is_guarded:
        territories.add(_HOST, host)
        territories.reserve(_HOST, RESERVED)
    errors: list[PluginError] = []
    for mount in sorted(mounts, key=lambda each: each.is_confined):  # stable: load order within both
        claims, owner = list(mount.iter_routes()), f"plugin {mount.plugin_id!r}"
        found: list[PluginError] = [_error(mount, claim, *taken) for claim in claims if (taken := register.find(claim))]
        if mount.is_confined and not found:
            found += [_trespass(mount, claim, *whose) for claim in claims if (whose := territories.find(claim))]
        errors += found
        if not found:
            for claim in claims:
                register.add(owner, claim)
            if is_guarded:
                territories.add(owner, claims, prefix=mount.prefix)
    return errors


def _trespass(mount: PluginMount, claim: RouteClaim, owner: str, territory: str) -> TrespassError:
    return TrespassError(plugin=mount.plugin_id, path=claim.path, owner=owner, territory=territory)


def _host_claims(app: FastAPI) -> list[RouteClaim]:
    routes = _host_routes(app)
    explicit = [it for it in list_routes(routes) if it.path is None or not catches_all(it.route, it.path)]
    claims = list(iter_claims(explicit))
    if fastapi_internals.is_usable():
        frontends = [*fastapi_internals.frontends_of(app.router)]
        frontends += [path for route in routes for path in fastapi_internals.iter_frontends(route)]
        claims += [RouteClaim("FRONTEND", path, path, "frontend of the host") for path in frontends]
    return claims


def _host_routes(app: FastAPI) -> list[BaseRoute]:
    for route in app.router.routes:
        if isinstance(route, PluginRoute):
            return list(route.host_routes())
    return list(app.router.routes)


def _error(mount: PluginMount, claim: RouteClaim, owner: str, other: RouteClaim) -> RouteConflictError:
    return RouteConflictError(
        plugin=mount.plugin_id,
        method=claim.method,
        path=claim.path,
        owner=owner,
        endpoint=str(claim),
        other=str(other),
    )
