"""The tables of a small game."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Mapped, mapped_column

from pixsim7_backend.db.models import Timestamps, plugin_base

Base = plugin_base("small-game")


class Hero(Timestamps, Base):
    """What plugins may see, but for the purse; they may change the state."""

    __tablename__ = "heroes"
    community_read = frozenset({"id", "name", "state", "created_at"})
    community_write = frozenset({"state"})

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    state: Mapped[dict[str, Any]]
    purse: Mapped[str]


class Secret(Base):
    """What no plugin may see."""

    __tablename__ = "secrets"

    id: Mapped[int] = mapped_column(primary_key=True)
    token: Mapped[str]


MODELS = (Hero, Secret)
