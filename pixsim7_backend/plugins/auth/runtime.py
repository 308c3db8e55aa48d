"""What the plugin holds while it runs: its settings, keys, hashing and clock, one set per app."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection

from pixsim7_backend.db.models import utc_now
from pixsim7_backend.settings import Settings, load_settings

from .passwords import PasswordHashing
from .secret_key import resolve_secret
from .settings import AuthSettings
from .tokens import TokenSigner, derive_key


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthRuntime:
    """Everything that logins need besides the database; a test replaces ``clock`` or ``passwords``."""

    settings: AuthSettings
    passwords: PasswordHashing
    signer: TokenSigner
    attempts_secret: bytes
    clock: Callable[[], datetime] = utc_now


def build_runtime(settings: AuthSettings, secret: str) -> AuthRuntime:
    """Return the runtime for these settings and this secret."""
    return AuthRuntime(
        settings=settings,
        passwords=build_hashing(settings),
        signer=TokenSigner(secret),
        attempts_secret=derive_key(secret, "login attempts"),
    )


def build_hashing(settings: AuthSettings) -> PasswordHashing:
    """Return the hashing at the cost that is set."""
    return PasswordHashing(settings.hash_cost, concurrency=settings.hash_concurrency, queue=settings.hash_queue)


def install_runtime(app: FastAPI) -> None:
    """Make the app's runtime from the host's settings.

    Raises:
        WeakSecretError: the signing secret is missing strength; outside debug the server must not start with it.
    """
    host: Settings = getattr(app.state, "settings", None) or load_settings()
    secret = resolve_secret(host.secret_key.get_secret_value(), debug=host.debug, data_dir=host.data_dir)
    app.state.auth = build_runtime(AuthSettings(), secret)


async def runtime_of(connection: HTTPConnection) -> AuthRuntime:
    """Return the runtime of the app that serves this request."""
    runtime: AuthRuntime = connection.app.state.auth
    return runtime


Auth = Annotated[AuthRuntime, Depends(runtime_of)]
