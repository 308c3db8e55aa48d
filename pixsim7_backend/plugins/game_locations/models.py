"""The tables of locations and their hotspots."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from pixsim7_backend.db.models import RowVersion, Timestamps, plugin_base

Base = plugin_base("game-locations")


class GameLocation(Timestamps, RowVersion, Base):
    """A place of the game's world; ``version`` counts its changes, those of its hotspots included."""

    __tablename__ = "game_locations"
    community_read = frozenset({"id", "name", "x", "y", "asset_id", "default_spawn", "meta"})

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), index=True)
    x: Mapped[float]
    y: Mapped[float]
    asset_id: Mapped[int | None]
    default_spawn: Mapped[str | None] = mapped_column(String(200))
    meta: Mapped[dict[str, Any]]

    hotspots: Mapped[list[GameHotspot]] = relationship(
        cascade="all, delete-orphan", passive_deletes=True, order_by="GameHotspot.position"
    )


class GameHotspot(Base):
    """A spot on an object of a location's picture."""

    __tablename__ = "game_hotspots"
    __table_args__ = (UniqueConstraint("location_id", "object_name", "hotspot_id"),)
    community_read = frozenset({"location_id", "position", "object_name", "hotspot_id", "linked_scene_id", "meta"})

    id: Mapped[int] = mapped_column(primary_key=True)
    location_id: Mapped[int] = mapped_column(ForeignKey("game_locations.id", ondelete="CASCADE"))
    position: Mapped[int]
    object_name: Mapped[str] = mapped_column(String(200))
    hotspot_id: Mapped[str] = mapped_column(String(200))
    linked_scene_id: Mapped[int | None] = mapped_column(index=True)
    meta: Mapped[dict[str, Any]]
