"""What confined plugins may do, and an audit of who decided so."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.add_column("plugin_state", sa.Column("grants", _JSON, nullable=True))
    op.create_table(
        "plugin_audit",
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("plugin_id", sa.String(200), nullable=False),
        sa.Column("decision", _JSON, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_plugin_audit"),
    )


def downgrade() -> None:
    op.drop_table("plugin_audit")
    with op.batch_alter_table("plugin_state") as table:
        table.drop_column("grants")
