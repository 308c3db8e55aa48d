"""The tables of NPCs: who they are, how they look, where they go, and what was set by hand."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from pixsim7_backend.db.models import JsonDict, Timestamps, plugin_base

Base = plugin_base("game-npcs")


class GameNpc(Timestamps, Base):
    """Somebody who is not played by a player."""

    __tablename__ = "game_npcs"
    community_read = frozenset({"id", "name", "personality", "home_location_id"})

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), index=True)
    personality: Mapped[dict[str, Any]]
    home_location_id: Mapped[int | None] = mapped_column(index=True)


class NpcExpression(Base):
    """The picture of an NPC in one state."""

    __tablename__ = "game_npc_expressions"
    __table_args__ = (UniqueConstraint("npc_id", "state"),)
    community_read = frozenset({"npc_id", "state", "asset_id", "crop", "meta"})

    id: Mapped[int] = mapped_column(primary_key=True)
    npc_id: Mapped[int] = mapped_column(ForeignKey("game_npcs.id", ondelete="CASCADE"))
    position: Mapped[int]
    state: Mapped[str] = mapped_column(String(200))
    asset_id: Mapped[int]
    crop: Mapped[dict[str, Any] | None] = mapped_column(JsonDict)
    meta: Mapped[dict[str, Any]]


class NpcStay(Base):
    """One entry of an NPC's week; ``position`` is its place in the list, which decides where stays overlap."""

    __tablename__ = "game_npc_schedules"
    __table_args__ = (UniqueConstraint("npc_id", "position"),)
    community_read = frozenset({"npc_id", "position", "day_of_week", "start_time", "end_time", "location_id", "rule"})

    id: Mapped[int] = mapped_column(primary_key=True)
    npc_id: Mapped[int] = mapped_column(ForeignKey("game_npcs.id", ondelete="CASCADE"))
    position: Mapped[int]
    day_of_week: Mapped[int]
    start_time: Mapped[float]
    end_time: Mapped[float]
    location_id: Mapped[int] = mapped_column(index=True)
    rule: Mapped[dict[str, Any] | None] = mapped_column(JsonDict)


class NpcStateRow(Timestamps, Base):
    """What was set by hand for an NPC in one world, or (``world_id`` null) outside any.

    At most one row for each NPC and world, and one without a world: two partial unique indexes,
    since to a plain one every null is another null.
    """

    __tablename__ = "game_npc_states"
    __table_args__ = (
        Index(
            "uq_game_npc_states_npc_id_world_id",
            "npc_id",
            "world_id",
            unique=True,
            sqlite_where=text("world_id IS NOT NULL"),
            postgresql_where=text("world_id IS NOT NULL"),
        ),
        Index(
            "uq_game_npc_states_npc_id_no_world",
            "npc_id",
            unique=True,
            sqlite_where=text("world_id IS NULL"),
            postgresql_where=text("world_id IS NULL"),
        ),
    )
    community_read = frozenset({"npc_id", "world_id", "current_location_id", "state"})
    community_write = frozenset({"state"})

    id: Mapped[int] = mapped_column(primary_key=True)
    npc_id: Mapped[int] = mapped_column(ForeignKey("game_npcs.id", ondelete="CASCADE"))
    world_id: Mapped[int | None] = mapped_column(index=True)
    current_location_id: Mapped[int | None] = mapped_column(index=True)
    state: Mapped[dict[str, Any]]
