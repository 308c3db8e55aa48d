"""What authors of community plugins import besides FastAPI; it works alike in a jail and in the host's process.

from pixsim7_backend.community.sdk import CurrentUser, http_client
from pixsim7_backend.community.tables import open_table
from pixsim7_backend.db import DbSession, ReadOnlyDb
from pixsim7_backend.redis import get_redis

@router.get("/mine")
def mine(user: CurrentUser) -> int:      # permissions=["user:read"]
    return user.id

with http_client() as http:              # permissions=["net:api.example.org"]
    weather = http.get("https://api.example.org/today").json()
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from pixsim7_backend.infrastructure.plugins.errors import ShareUsedUpError
from pixsim7_backend.problems import Unauthorized

from .http.inside import AsyncHostTransport, HostTransport, async_http_client, http_client
from .users import Caller, find_caller

__all__ = [
    "AsyncHostTransport",
    "Caller",
    "CurrentUser",
    "HostTransport",
    "ShareUsedUpError",
    "async_http_client",
    "current_user",
    "http_client",
]


async def current_user(connection: HTTPConnection) -> Caller:
    """Return who asks: their id and role, which the host has verified; for ``user:read``.

    Raises:
        Unauthorized: nobody who is logged in.
    """
    caller = await find_caller(connection)
    if caller is None:
        raise Unauthorized
    return caller


CurrentUser = Annotated[Caller, Depends(current_user)]
"""``user: CurrentUser`` in an endpoint."""
