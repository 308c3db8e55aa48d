"""What an operator can set; every name is also an environment variable with the prefix ``USERS_``.

As for the host's own settings an empty variable counts as unset, and no ``.env`` file is read.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from .rules import Quotas

MOST = 2**53
"""The largest quota: what every JSON client can read exactly."""

_Amount = Annotated[int, Field(ge=0, le=MOST)]


class UsersSettings(BaseSettings):
    """Settings of the users plugin, read once when it is loaded: the quotas of users without their own."""

    model_config = SettingsConfigDict(env_prefix="USERS_", env_ignore_empty=True, extra="ignore", frozen=True)

    daily_jobs: _Amount = 100
    """Jobs that a user may begin per day."""
    concurrent_jobs: _Amount = 4
    """Jobs that a user may have under way."""
    assets: _Amount = 10_000
    """Assets that a user may keep."""
    storage_bytes: _Amount = 10 * 1024**3
    """Bytes that a user may keep."""

    @property
    def quotas(self) -> Quotas:
        return Quotas(
            daily_jobs=self.daily_jobs,
            concurrent_jobs=self.concurrent_jobs,
            assets=self.assets,
            storage_bytes=self.storage_bytes,
        )
