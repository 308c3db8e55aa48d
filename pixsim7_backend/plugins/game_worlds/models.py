"""The table of worlds."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from pixsim7_backend.db.models import RowVersion, Timestamps, plugin_base

Base = plugin_base("game-worlds")


class GameWorld(Timestamps, RowVersion, Base):
    """A player's world: a clock, and what the game's rules want to know of it in ``meta``."""

    __tablename__ = "game_worlds"
    __table_args__ = (Index("ix_game_worlds_owner_id_id", "owner_id", "id"),)
    community_read = frozenset({"id", "owner_id", "name", "world_time", "meta"})

    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int]
    name: Mapped[str] = mapped_column(String(200))
    world_time: Mapped[float] = mapped_column(default=0.0)
    """Game time in seconds since the world began."""
    meta: Mapped[dict[str, Any]]
