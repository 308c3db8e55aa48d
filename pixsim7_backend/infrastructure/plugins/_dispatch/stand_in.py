"""What answers in the place of a plugin that is out of service for a while."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, HTTPException
from starlette.requests import Request
from starlette.responses import Response

from pixsim7_backend.infrastructure.plugins._ledger.ownership import Owner

from .claims import ANY_METHOD
from .mount import PluginMount

_NO_METHODS = ("WEBSOCKET", "MOUNT", "FRONTEND")


def build_stand_in(mount: PluginMount, refusal: Callable[[], HTTPException]) -> PluginMount:
    """Return a mount with the paths and methods of ``mount`` that raises ``refusal()`` for each request.

    It holds nothing of the plugin, is not in the schema, and counts for nobody. WebSockets and
    mounted applications have no stand-in: they are not found meanwhile.
    """

    async def refuse(_request: Request) -> Response:
        raise refusal()

    methods: dict[str, set[str]] = {}
    for claim in mount.iter_routes():
        if claim.method not in _NO_METHODS:
            methods.setdefault(claim.path, set()).add(claim.method)
    router = APIRouter()
    for path, allowed in methods.items():
        router.add_route(path, refuse, None if ANY_METHOD in allowed else sorted(allowed), include_in_schema=False)
    holder = APIRouter()
    holder.include_router(router)
    owner = Owner(mount.owner.app, mount.plugin_id, mount.owner.generation, mount.owner.package, mount.owner.directory)
    return PluginMount(owner, holder, [router])
