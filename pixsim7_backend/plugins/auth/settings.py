"""What an operator can set; every name is also an environment variable with the prefix ``AUTH_``.

As for the host's own settings an empty variable counts as unset, and no ``.env`` file is read.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from .passwords import HashCost
from .rules import LoginLimit


class AuthSettings(BaseSettings):
    """Settings of the auth plugin, read once when it is loaded."""

    model_config = SettingsConfigDict(env_prefix="AUTH_", env_ignore_empty=True, extra="ignore", frozen=True)

    token_minutes: Annotated[int, Field(ge=1, le=60 * 24 * 365)] = 60 * 24
    """How long a login lasts."""
    max_sessions: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Logins one user may have at once; the oldest ends when there are more."""

    argon2_time: Annotated[int, Field(ge=1, le=100)] = 3
    """Passes of the password hash."""
    argon2_memory_kib: Annotated[int, Field(ge=8, le=4 * 1024 * 1024)] = 64 * 1024
    """Memory that hashing one password takes."""
    argon2_lanes: Annotated[int, Field(ge=1, le=64)] = 4
    """Lanes of the password hash."""
    hash_concurrency: Annotated[int, Field(ge=1, le=256)] = 2
    """Passwords hashed at once in one worker; each takes ``argon2_memory_kib``."""
    hash_queue: Annotated[int, Field(ge=0, le=100_000)] = 200
    """Passwords that may wait for their turn; who comes on top gets 429."""

    account_attempts: Annotated[int, Field(ge=1)] = 10
    """Failed logins into one account per window."""
    address_attempts: Annotated[int, Field(ge=1)] = 100
    """Failed logins from one address (one /64 network for IPv6) per window."""
    attempt_window_seconds: Annotated[int, Field(ge=1, le=86_400)] = 300
    """How long a failed login counts."""

    @property
    def token_lifetime(self) -> timedelta:
        return timedelta(minutes=self.token_minutes)

    @property
    def hash_cost(self) -> HashCost:
        return HashCost(time=self.argon2_time, memory_kib=self.argon2_memory_kib, lanes=self.argon2_lanes)

    @property
    def account_limit(self) -> LoginLimit:
        return LoginLimit(self.account_attempts, timedelta(seconds=self.attempt_window_seconds))

    @property
    def address_limit(self) -> LoginLimit:
        return LoginLimit(self.address_attempts, timedelta(seconds=self.attempt_window_seconds))
