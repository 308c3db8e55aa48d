"""Auth: registering, logging in and out, and the list of one's logins."""

from __future__ import annotations

from fastapi import APIRouter, Depends, FastAPI, Request, Response

from pixsim7_backend.db import DbSession, ReadOnlyDb, database_of
from pixsim7_backend.infrastructure.plugins import ports
from pixsim7_backend.infrastructure.plugins.types import PluginManifest
from pixsim7_backend.paging import Page, PageParams, paginate
from pixsim7_backend.problems import NotFound
from pixsim7_backend.storable import PathId

from . import accounts, login_sessions, logins
from .dependencies import CurrentLogin, CurrentUser, authorize_admin, client_of, identify_caller
from .login_sessions import Login
from .models import LoginSession
from .request_body import CREDENTIALS_BODY, PostedCredentials
from .runtime import Auth, install_runtime
from .schemas import AccessToken, PasswordChange, Registration, SessionView, UserAccount
from .token_user import TokenUserReader

manifest = PluginManifest(
    id="auth",
    name="Auth",
    version="1.0.0",
    description="Accounts, logins and access tokens that can be revoked at once.",
    author="PixSim7",
    prefix="/api/v1",
    tags=["auth"],
    requires_db=True,
    required=True,
)

router = APIRouter(prefix="/auth", tags=["auth"])


def on_load(app: FastAPI) -> None:
    """Read the settings and the signing secret, and let the host ask who is an admin and whom to count.

    A weak secret outside debug keeps the server from starting.
    """
    install_runtime(app)
    ports.provide("admin-guard", authorize_admin)
    ports.provide("token-user", TokenUserReader(app))
    ports.provide("caller-identity", identify_caller)


async def _no_store(response: Response) -> None:
    """Tokens are not for caches (RFC 6749, 5.1)."""
    response.headers["Cache-Control"] = "no-store"


@router.post("/register", status_code=201, dependencies=[Depends(_no_store)])
async def register(new: Registration, request: Request, response: Response, auth: Auth) -> AccessToken:
    """Make an account and log it in; 409 when the e-mail address or the username is taken in any spelling."""
    token = await logins.register(auth, database_of(request), new, client_of(request))
    response.headers["Location"] = request.url_for("auth_me").path
    return token


@router.post("/login", dependencies=[Depends(_no_store)], openapi_extra=CREDENTIALS_BODY)
async def login(given: PostedCredentials, request: Request, auth: Auth) -> AccessToken:
    """Log in with e-mail address or username, as JSON or as the OAuth2 password form; 429 after too many failures."""
    return await logins.log_in(auth, database_of(request), given, client_of(request))


@router.get("/me", name="auth_me")
def read_me(user: CurrentUser, db: ReadOnlyDb) -> UserAccount:
    """Return the account of the token."""
    return accounts.get_account(db, user.id)


@router.post("/logout", status_code=204)
def logout(login: CurrentLogin, db: DbSession) -> None:
    """End the login of the token that is presented; it is void from the next request on."""
    login_sessions.end(db, login.session_id, user_id=login.user.id)


@router.post("/logout-all", status_code=204)
def logout_all(user: CurrentUser, db: DbSession) -> None:
    """End all logins of the caller, this one included."""
    login_sessions.end_all(db, user.id)


@router.post("/password", status_code=204)
async def change_password(
    change: PasswordChange, request: Request, login: CurrentLogin, auth: Auth, db: DbSession
) -> None:
    """Replace the caller's password and end their other logins; 403 when the current one is wrong."""
    await logins.change_password(auth, db, login, change, client_of(request))


@router.get("/sessions")
def list_sessions(login: CurrentLogin, auth: Auth, db: ReadOnlyDb, page: PageParams) -> Page[SessionView]:
    """List the caller's logins that are still valid, newest first."""
    live = login_sessions.live_sessions(login.user.id, now=auth.clock())
    return paginate(db, live, page, lambda row: _view(row, login), order_by=(LoginSession.id.desc(),))


@router.delete("/sessions/{session_id}", status_code=204)
def end_session(session_id: PathId, user: CurrentUser, db: DbSession) -> None:
    """End one of the caller's logins; 404 when it is somebody else's."""
    if not login_sessions.end(db, session_id, user_id=user.id):
        raise NotFound("login session", session_id)


def _view(row: LoginSession, login: Login) -> SessionView:
    return SessionView.model_validate(row).model_copy(update={"current": row.id == login.session_id})
