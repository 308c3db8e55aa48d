"""The tables of quotas, usage and preferences; the accounts themselves belong to auth."""

from __future__ import annotations

from datetime import date
from typing import Any

from sqlalchemy import BigInteger
from sqlalchemy.orm import Mapped, mapped_column

from pixsim7_backend.db.models import JsonDict, Timestamps, plugin_base

Base = plugin_base("users")


class UserQuotas(Timestamps, Base):
    """What an admin has set for one user; a NULL means the default of the settings."""

    __tablename__ = "user_quotas"

    user_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    daily_jobs: Mapped[int | None] = mapped_column(BigInteger)
    concurrent_jobs: Mapped[int | None] = mapped_column(BigInteger)
    assets: Mapped[int | None] = mapped_column(BigInteger)
    storage_bytes: Mapped[int | None] = mapped_column(BigInteger)


class UserUsage(Timestamps, Base):
    """What one user has used on ``day`` (UTC) and in all."""

    __tablename__ = "user_usage"

    user_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    day: Mapped[date]
    jobs_today: Mapped[int] = mapped_column(BigInteger, default=0)
    assets_today: Mapped[int] = mapped_column(BigInteger, default=0)
    storage_bytes_today: Mapped[int] = mapped_column(BigInteger, default=0)
    jobs_total: Mapped[int] = mapped_column(BigInteger, default=0)
    assets_total: Mapped[int] = mapped_column(BigInteger, default=0)
    storage_bytes_total: Mapped[int] = mapped_column(BigInteger, default=0)


class UserPreferences(Timestamps, Base):
    """A user's settings of the client: any JSON object."""

    __tablename__ = "user_preferences"

    user_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    preferences: Mapped[dict[str, Any]] = mapped_column(JsonDict)
