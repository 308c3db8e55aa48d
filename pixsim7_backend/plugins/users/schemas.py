"""What clients send and get."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from pixsim7_backend.plugins.auth import DisplayName, Email, Role, UserAccount, Username

from .settings import MOST

_Amount = Annotated[int, Field(ge=0, le=MOST, strict=True)]


class _Input(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProfileChanges(_Input):
    """What a user may change of their own account; what is left out stays."""

    # Never their defaults: only what was sent is used. A factory keeps the schema free of a default.
    email: Email = Field(default_factory=str)
    username: Username = Field(default_factory=str)
    display_name: DisplayName | None = None
    """None takes the name away."""


class QuotaChanges(_Input):
    """Quotas of one user; what is left out stays, None goes back to the default of the settings."""

    daily_jobs: _Amount | None = None
    concurrent_jobs: _Amount | None = None
    assets: _Amount | None = None
    storage_bytes: _Amount | None = None


class AccountChanges(_Input):
    """What an admin may change of an account; what is left out stays."""

    role: Role = Field(default_factory=lambda: Role.USER)
    is_active: bool = Field(default_factory=bool, strict=True)
    quotas: QuotaChanges = Field(default_factory=QuotaChanges)


class _View(BaseModel):
    model_config = ConfigDict(from_attributes=True, frozen=True)


class AmountsView(_View):
    """How much of each thing that is counted."""

    jobs: int
    assets: int
    storage_bytes: int


class QuotasView(_View):
    """How much a user may use."""

    daily_jobs: int
    concurrent_jobs: int
    assets: int
    storage_bytes: int


class RemainingView(_View):
    """How much is left; never below nothing, also where a quota was lowered below what is used."""

    daily_jobs: int
    assets: int
    storage_bytes: int


class UsageView(_View):
    """A user's usage against their quotas; ``today`` is the UTC day that ends at ``resets_at``."""

    day: date
    resets_at: datetime
    today: AmountsView
    total: AmountsView
    quotas: QuotasView
    remaining: RemainingView


class AdministeredAccount(UserAccount):
    """An account as admins see it."""

    quotas: QuotasView
