"""Who is asking: the dependencies that other plugins put into their endpoints."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import OAuth2PasswordBearer
from fastapi.security.utils import get_authorization_scheme_param
from starlette.requests import HTTPConnection

from pixsim7_backend.db import ReadOnlyDb, database_of
from pixsim7_backend.problems import Forbidden, Unauthorized

from . import login_sessions
from .login_sessions import Client, Login, UserIdentity
from .runtime import Auth, runtime_of
from .tokens import InvalidTokenError

# Relative, so that /docs finds it behind a proxy's path prefix too.
bearer_token = OAuth2PasswordBearer(tokenUrl="api/v1/auth/login", auto_error=False, scheme_name="bearer")


def current_login(token: Annotated[str | None, Depends(bearer_token)], auth: Auth, db: ReadOnlyDb) -> Login:
    """Return the login of the bearer token: one query, by its unique ``jti``.

    Raises:
        Unauthorized: there is no token, or it is forged, expired or ended, or its user is deactivated.
    """
    if not token:
        raise Unauthorized
    now = auth.clock()
    try:
        claims = auth.signer.read(token, now=now)
    except InvalidTokenError:
        raise _void_token() from None
    login = login_sessions.find_login(db, claims, now=now)
    db.rollback()  # ends the snapshot: the endpoint reads what is newer, and nothing idles open while it works
    if login is None:
        raise _void_token()
    return login


CurrentLogin = Annotated[Login, Depends(current_login)]


async def current_user(login: CurrentLogin) -> UserIdentity:
    """Return who is asking; Unauthorized as :func:`current_login`."""
    return login.user


CurrentUser = Annotated[UserIdentity, Depends(current_user)]


async def admin_user(user: CurrentUser) -> UserIdentity:
    """Return the admin who is asking; Forbidden when it is somebody else."""
    if not user.is_admin:
        raise Forbidden("only admins may do this")
    return user


AdminUser = Annotated[UserIdentity, Depends(admin_user)]


async def authorize_admin(request: Request, token: str | None) -> UserIdentity:
    """Return the admin whose token this is: :func:`admin_user` for the host, which depends on no plugin.

    Provided under the port ``admin-guard``. Errors are those of :func:`admin_user`.
    """
    return await admin_user((await _find_login(request, token)).user)


async def identify_caller(connection: HTTPConnection) -> UserIdentity | None:
    """Return whose bearer token a request presents; None: nobody's, or it is not valid (any more).

    Provided under the port ``caller-identity``, for the host's answer to plugins that must not see the token.
    """
    scheme, token = get_authorization_scheme_param(connection.headers.get("authorization"))
    if scheme.lower() != "bearer" or not token:
        return None
    try:
        return (await _find_login(connection, token)).user
    except Unauthorized:
        return None


async def _find_login(connection: HTTPConnection, token: str | None) -> Login:
    auth = await runtime_of(connection)
    database = database_of(connection)

    def find() -> Login:
        with database.readonly_session() as db:
            return current_login(token, auth, db)

    return await run_in_threadpool(find)


def client_of(connection: HTTPConnection) -> Client:
    """Return the address and program that a login comes from, cut to what is stored."""
    agent = connection.headers.get("user-agent", "")
    printable = "".join(character for character in agent if character.isprintable())
    return Client(address=connection.client.host[:64] if connection.client else "", user_agent=printable[:200])


def _void_token() -> Unauthorized:
    return Unauthorized("the token is not valid (any more); log in again")
