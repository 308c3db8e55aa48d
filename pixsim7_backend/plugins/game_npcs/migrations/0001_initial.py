"""The tables of NPCs. A location that is deleted is let go of: homes and stored places become null, stays end."""

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
    _create_npcs()
    _create_expressions()
    _create_schedules()
    _create_states()


def downgrade() -> None:
    op.drop_table("game_npc_states")
    op.drop_table("game_npc_schedules")
    op.drop_table("game_npc_expressions")
    op.drop_table("game_npcs")


def _create_npcs() -> None:
    op.create_table(
        "game_npcs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("personality", _JSON, nullable=False),
        sa.Column("home_location_id", sa.Integer()),
        *_timestamps(),
        sa.PrimaryKeyConstraint("id", name="pk_game_npcs"),
        _to_location("game_npcs", "home_location_id", ondelete="SET NULL"),
    )
    op.create_index("ix_game_npcs_name", "game_npcs", ["name"])
    op.create_index("ix_game_npcs_home_location_id", "game_npcs", ["home_location_id"])


def _create_expressions() -> None:
    op.create_table(
        "game_npc_expressions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("npc_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(200), nullable=False),
        sa.Column("asset_id", sa.Integer(), nullable=False),
        sa.Column("crop", _JSON),
        sa.Column("meta", _JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_game_npc_expressions"),
        _to_npc("game_npc_expressions"),
        sa.UniqueConstraint("npc_id", "state", name="uq_game_npc_expressions_npc_id_state"),
    )


def _create_schedules() -> None:
    op.create_table(
        "game_npc_schedules",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("npc_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("day_of_week", sa.Integer(), nullable=False),
        sa.Column("start_time", sa.Double(), nullable=False),
        sa.Column("end_time", sa.Double(), nullable=False),
        sa.Column("location_id", sa.Integer(), nullable=False),
        sa.Column("rule", _JSON),
        sa.PrimaryKeyConstraint("id", name="pk_game_npc_schedules"),
        _to_npc("game_npc_schedules"),
        _to_location("game_npc_schedules", "location_id", ondelete="CASCADE"),
        sa.UniqueConstraint("npc_id", "position", name="uq_game_npc_schedules_npc_id_position"),
    )
    op.create_index("ix_game_npc_schedules_location_id", "game_npc_schedules", ["location_id"])


def _create_states() -> None:
    op.create_table(
        "game_npc_states",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("npc_id", sa.Integer(), nullable=False),
        sa.Column("world_id", sa.Integer()),
        sa.Column("current_location_id", sa.Integer()),
        sa.Column("state", _JSON, nullable=False),
        *_timestamps(),
        sa.PrimaryKeyConstraint("id", name="pk_game_npc_states"),
        _to_npc("game_npc_states"),
        sa.ForeignKeyConstraint(
            ["world_id"], ["game_worlds.id"], name="fk_game_npc_states_world_id_game_worlds", ondelete="CASCADE"
        ),
        _to_location("game_npc_states", "current_location_id", ondelete="SET NULL"),
    )
    op.create_index("ix_game_npc_states_world_id", "game_npc_states", ["world_id"])
    op.create_index("ix_game_npc_states_current_location_id", "game_npc_states", ["current_location_id"])
    # Two indexes, since to a plain unique one every null world is another null.
    _create_unique_where("uq_game_npc_states_npc_id_world_id", ["npc_id", "world_id"], "world_id IS NOT NULL")
    _create_unique_where("uq_game_npc_states_npc_id_no_world", ["npc_id"], "world_id IS NULL")


def _create_unique_where(name: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, "game_npc_states", columns, unique=True, sqlite_where=where, postgresql_where=where)


def _timestamps() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
    )


def _to_npc(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["npc_id"], ["game_npcs.id"], name=f"fk_{table}_npc_id_game_npcs", ondelete="CASCADE"
    )


def _to_location(table: str, column: str, *, ondelete: str) -> sa.ForeignKeyConstraint:
    name = f"fk_{table}_{column}_game_locations"
    return sa.ForeignKeyConstraint([column], ["game_locations.id"], name=name, ondelete=ondelete)
