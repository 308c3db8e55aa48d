"""The tables of sessions and of their history."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from pixsim7_backend.db.models import JsonDict, RowVersion, Timestamps, plugin_base, utc_now

from .state import SessionState, plain

Base = plugin_base("game-sessions")


class GameSession(Timestamps, RowVersion, Base):
    """One user's play-through of a scene.

    Conventions: ``relationships["npc:<id>"]`` = {affinity, trust, chemistry, tension, score?, flags{}};
    ``flags.stealth``, ``flags.arcs``, and the world in ``flags.world.id``.
    """

    __tablename__ = "game_sessions"
    __table_args__ = (Index("ix_game_sessions_user_id_id", "user_id", "id"),)
    community_read = frozenset(
        {"id", "user_id", "scene_id", "current_node_id", "flags", "relationships", "world_time", "created_at"}
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int]
    scene_id: Mapped[int | None] = mapped_column(index=True)
    """None once the scene has been deleted: what was played stays, but cannot go on."""
    current_node_id: Mapped[str] = mapped_column(String(64))
    flags: Mapped[dict[str, Any]]
    relationships: Mapped[dict[str, Any]]
    world_time: Mapped[float]

    def state(self) -> SessionState:
        """Return what the session remembers, as a value that shares nothing with this row."""
        return SessionState(
            current_node_id=self.current_node_id,
            world_time=self.world_time,
            flags=plain(self.flags),
            relationships=plain(self.relationships),
        )


class SessionEvent(Base):
    """Something that happened to a session, as its history tells it."""

    __tablename__ = "game_session_events"
    __table_args__ = (
        Index("ix_game_session_events_session_id_id", "session_id", "id"),
        Index("ix_game_session_events_session_id_edge_id_at", "session_id", "edge_id", "at"),
    )
    community_read = frozenset({"id", "session_id", "kind", "at", "session_version", "edge_id", "detail", "paths"})

    id: Mapped[int] = mapped_column(primary_key=True)
    session_id: Mapped[int] = mapped_column(ForeignKey("game_sessions.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(64))
    """``created``, ``advanced``, ``patched``, or what another plugin calls its own change."""
    at: Mapped[datetime] = mapped_column(default=utc_now)
    session_version: Mapped[int]
    """The session's version after it."""
    edge_id: Mapped[str | None] = mapped_column(String(140))
    detail: Mapped[dict[str, Any]]
    paths: Mapped[list[str]]
    """Dotted paths of what changed, the first hundred."""
    changes: Mapped[dict[str, Any] | None] = mapped_column(JsonDict)
    """The merge patch from the state before to the one after; None where it is longer than 4 KiB."""
