"""The table of worlds."""

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
        "game_worlds",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("owner_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("world_time", sa.Double(), nullable=False),
        sa.Column("meta", _JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_game_worlds"),
        sa.ForeignKeyConstraint(["owner_id"], ["users.id"], name="fk_game_worlds_owner_id_users", ondelete="CASCADE"),
    )
    op.create_index("ix_game_worlds_owner_id_id", "game_worlds", ["owner_id", "id"])


def downgrade() -> None:
    op.drop_table("game_worlds")
