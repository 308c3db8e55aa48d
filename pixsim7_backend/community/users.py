"""Who asks, for confined plugins: the verified id and role of the caller, and never what proves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from fastapi import FastAPI
from starlette.requests import HTTPConnection
from starlette.types import Scope

from pixsim7_backend.infrastructure.plugins import ports
from pixsim7_backend.infrastructure.plugins._jail.broker import (
    BrokerError,
    CallContext,
    Grants,
    JailIdentity,
    ServiceSession,
)
from pixsim7_backend.infrastructure.plugins._jail.inside.services import is_jailed

__all__ = ["Caller", "UserService", "extend_scope", "find_caller", "install"]

PORT = "caller-identity"
_PERMISSION = "user:read"
_KEY = "pixsim7.user"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as of now: known to the host, whose word it is."""

    id: int
    role: str

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"


async def extend_scope(scope: Scope, grants: Grants) -> Mapping[str, Any]:
    """Return what a confined plugin may know of who sends a request, as addition to its scope.

    The plugin that keeps the accounts is asked, once, and only where that is granted and somebody presents something.
    """
    if not grants.has(_PERMISSION):
        return {}
    caller = await _identify(scope)
    return {} if caller is None else {_KEY: {"id": caller.id, "role": caller.role}}


async def find_caller(connection: HTTPConnection) -> Caller | None:
    """Return who sends the request that is answered here, in a jail or in process; None: nobody who is known."""
    if not is_jailed():
        return await _identify(connection.scope)
    known = connection.scope.get(_KEY)
    return Caller(known["id"], known["role"]) if known is not None else None


async def _identify(scope: Scope) -> Caller | None:
    if not any(name == b"authorization" for name, _ in scope["headers"]):
        return None
    identify = ports.find(PORT)
    user = await identify(HTTPConnection(scope)) if identify is not None else None
    return Caller(user.id, str(user.role)) if user is not None else None


class UserService:
    """Nothing is called: who asks comes with each request. Here so that a plugin learns at once what is not granted."""

    family = "user"
    inside: str | None = "pixsim7_backend.community.users:install"
    permissions: tuple[str, ...] = ()

    def describe(self, jail: JailIdentity, grants: Grants) -> Mapping[str, Any]:
        """Tell whether it is granted to know who asks."""
        return {"plugin": jail.plugin, "is_granted": grants.has(_PERMISSION)}

    def open(self, jail: JailIdentity, grants: Grants) -> ServiceSession:
        """Return what refuses all calls."""
        return _Session()


class _Session:
    async def call(self, method: str, args: Sequence[Any], call: CallContext) -> NoReturn:
        raise BrokerError("UnknownCallError", "the host knows no calls about users; use current_user of the SDK")

    async def close(self) -> None:
        """Nothing is open."""


class UserNotGrantedError(Exception):
    """The plugin wants to know who asks, without permission. The text has the line to add to its manifest."""

    def __init__(self, plugin: str, name: str) -> None:
        super().__init__(
            f"plugin {plugin!r} uses {name}, which needs {_PERMISSION}; add to its manifest:"
            f' permissions=["{_PERMISSION}"], and let the operator grant it:'
            f" pixsim7 plugins enable {plugin} --grant {_PERMISSION}"
        )
        self.plugin = plugin


def install(app: FastAPI) -> None:
    """In the jail of a plugin that must not know: let the import of what would tell it fail."""
    described: Mapping[str, Any] = app.state.services["user"]
    if described["is_granted"]:
        return
    from pixsim7_backend.community import sdk

    names = frozenset({"current_user", "CurrentUser"})

    def refuse(name: str) -> Any:
        if name in names:
            raise UserNotGrantedError(described["plugin"], name)
        raise AttributeError(f"module {sdk.__name__!r} has no attribute {name!r}")

    for name in names:
        vars(sdk).pop(name, None)
    vars(sdk)["__getattr__"] = refuse
