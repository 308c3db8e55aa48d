"""What is switched and configured, one row per plugin, and the version of it all."""

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
        "plugin_state",
        sa.Column("plugin_id", sa.String(200), nullable=False),
        sa.Column("is_on", sa.Boolean(), nullable=True),
        sa.Column("settings", _JSON, nullable=False),
        sa.PrimaryKeyConstraint("plugin_id", name="pk_plugin_state"),
    )
    op.create_table(
        "plugin_state_version",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_plugin_state_version"),
    )


def downgrade() -> None:
    op.drop_table("plugin_state_version")
    op.drop_table("plugin_state")
