"""Quotas, usage and preferences of users."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
JSON = sa.JSON().with_variant(JSONB(), "postgresql")
AMOUNTS = ("jobs", "assets", "storage_bytes")


def _create(table: str, *columns: sa.Column[object]) -> None:
    op.create_table(
        table,
        sa.Column("user_id", sa.Integer(), nullable=False, autoincrement=False),
        *columns,
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("user_id", name=f"pk_{table}"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=f"fk_{table}_user_id_users", ondelete="CASCADE"),
    )


def upgrade() -> None:
    limits = ("daily_jobs", "concurrent_jobs", "assets", "storage_bytes")
    _create("user_quotas", *(sa.Column(name, sa.BigInteger(), nullable=True) for name in limits))
    counters = [f"{name}_{span}" for span in ("today", "total") for name in AMOUNTS]
    _create(
        "user_usage",
        sa.Column("day", sa.Date(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in counters),
    )
    _create("user_preferences", sa.Column("preferences", JSON, nullable=False))


def downgrade() -> None:
    for table in ("user_preferences", "user_usage", "user_quotas"):
        op.drop_table(table)
