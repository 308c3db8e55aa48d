"""The tables of sessions and of their history."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "game_sessions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("scene_id", sa.Integer()),
        sa.Column("current_node_id", sa.String(64), nullable=False),
        sa.Column("flags", _JSON, nullable=False),
        sa.Column("relationships", _JSON, nullable=False),
        sa.Column("world_time", sa.Double(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_game_sessions"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_game_sessions_user_id_users", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["scene_id"], ["game_scenes.id"], name="fk_game_sessions_scene_id_game_scenes", ondelete="SET NULL"
        ),
    )
    op.create_index("ix_game_sessions_user_id_id", "game_sessions", ["user_id", "id"])
    op.create_index("ix_game_sessions_scene_id", "game_sessions", ["scene_id"])
    op.create_table(
        "game_session_events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("session_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("session_version", sa.Integer(), nullable=False),
        sa.Column("edge_id", sa.String(140)),
        sa.Column("detail", _JSON, nullable=False),
        sa.Column("paths", _JSON, nullable=False),
        sa.Column("changes", _JSON),
        sa.PrimaryKeyConstraint("id", name="pk_game_session_events"),
        sa.ForeignKeyConstraint(
            ["session_id"],
            ["game_sessions.id"],
            name="fk_game_session_events_session_id_game_sessions",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_game_session_events_session_id_id", "game_session_events", ["session_id", "id"])
    op.create_index(
        "ix_game_session_events_session_id_edge_id_at", "game_session_events", ["session_id", "edge_id", "at"]
    )


def downgrade() -> None:
    op.drop_table("game_session_events")
    op.drop_table("game_sessions")
