"""The table of scenes."""

from __future__ import annotations

from typing import Any

from sqlalchemy import String, Text
from sqlalchemy.orm import Mapped, mapped_column

from pixsim7_backend.db.models import RowVersion, Timestamps, plugin_base

Base = plugin_base("game-scenes")


class GameScene(Timestamps, RowVersion, Base):
    """A scene with its whole graph in one row: it is read and replaced as one, so nobody ever sees half of it."""

    __tablename__ = "game_scenes"
    community_read = frozenset({"id", "title", "description", "entry_node_id", "meta", "nodes", "edges"})

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(200))
    description: Mapped[str] = mapped_column(Text)
    entry_node_id: Mapped[str | None] = mapped_column(String(64))
    meta: Mapped[dict[str, Any]]
    nodes: Mapped[list[dict[str, Any]]]
    """As :class:`~.schemas.SceneNode`."""
    edges: Mapped[list[dict[str, Any]]]
    """As :class:`~.schemas.SceneEdge`."""
