"""A table for the tests of the data layer."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from pixsim7_backend.db.models import RowVersion, Timestamps, UtcDateTime, plugin_base

Base = plugin_base("db-tests")


class Counter(Timestamps, RowVersion, Base):
    """A row with everything in it."""

    __tablename__ = "counters"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(String(40), unique=True)
    value: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    meta: Mapped[dict[str, Any]] = mapped_column(default=dict)
    marks: Mapped[list[Any]] = mapped_column(default=list)


class Plain(Base):
    """A row without JSON and without version."""

    __tablename__ = "plains"

    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[int] = mapped_column(default=0)
