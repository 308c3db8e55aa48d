"""How operators get at the running backend's plugins: the admin API for admins, the control socket for the owner.

Auth is a plugin itself and may be replaced, disabled or broken while the server runs. So the admin API asks
it by its port at each request; while it is not there nobody is admitted, and the control socket, which asks
the system who is calling, is the way in.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Protocol

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.security import OAuth2PasswordBearer

from pixsim7_backend.infrastructure.plugins import PluginManager, ports
from pixsim7_backend.infrastructure.plugins.admin import SOCKET_NAME, ControlServer, admin_router, is_supported
from pixsim7_backend.infrastructure.plugins.errors import ControlSocketError, ServerRunsError
from pixsim7_backend.problems import ServiceUnavailable
from pixsim7_backend.settings import Settings

logger = logging.getLogger("pixsim7.operating")

PREFIX = "/api/v1/admin/plugins"
PORT = "admin-guard"
_WAY_IN = "on the server's machine `pixsim7 plugins list`, `enable` and `retry` work without a login"

# The same scheme as the auth plugin's, so that the API's description has it once.
_bearer_token = OAuth2PasswordBearer(tokenUrl="api/v1/auth/login", auto_error=False, scheme_name="bearer")


class AdminGuard(Protocol):
    """What the auth plugin provides under the name ``admin-guard``."""

    async def __call__(self, request: Request, token: str | None) -> object:
        """Return the admin whose bearer token this is; raise a 401 or 403 problem when it is not an admin's."""


async def require_admin(request: Request, token: Annotated[str | None, Depends(_bearer_token)]) -> None:
    """Let admins pass.

    Raises:
        HTTPException: 401 or 403, as the auth plugin decides; 503 when it is not there or broken.
    """
    guard: AdminGuard | None = ports.find(PORT)
    if guard is None:
        raise ServiceUnavailable(f"nobody can log in, since the auth plugin does not run; {_WAY_IN}")
    try:
        operator = await guard(request, token)
    except HTTPException:
        raise
    except Exception as error:  # the guard is a plugin's code: what breaks in it must not let anybody in
        logger.exception("The admin guard of the auth plugin failed")
        raise ServiceUnavailable(f"the auth plugin cannot tell who you are; {_WAY_IN}") from error
    request.state.operator = f"admin {getattr(operator, 'id', operator)}"


def plugin_routes() -> APIRouter:
    """Return the admin API of the plugins, for admins."""
    return admin_router(guard=require_admin, prefix=PREFIX, tags=["admin"])


def socket_path(settings: Settings) -> Path:
    """Return where the control socket of a server with these settings is."""
    return settings.data_dir / SOCKET_NAME


@asynccontextmanager
async def control_socket(manager: PluginManager, settings: Settings) -> AsyncIterator[None]:
    """Answer at the control socket; a server that cannot have one serves without, and says so.

    Of several workers one has it; like the others it refuses changes.
    """
    control = ControlServer(manager, socket_path(settings)) if is_supported() else None
    try:
        if control is not None:
            await control.start()
    except ControlSocketError as error:
        is_expected = isinstance(error, ServerRunsError) and settings.workers > 1
        logger.log(logging.DEBUG if is_expected else logging.WARNING, "Serving without it: %s", error)
        control = None
    try:
        yield
    finally:
        if control is not None:
            await control.close()
