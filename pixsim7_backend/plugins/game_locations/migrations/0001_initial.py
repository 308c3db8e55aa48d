"""The tables of locations and their hotspots."""

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
        "game_locations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("x", sa.Double(), nullable=False),
        sa.Column("y", sa.Double(), nullable=False),
        sa.Column("asset_id", sa.Integer()),
        sa.Column("default_spawn", sa.String(200)),
        sa.Column("meta", _JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_game_locations"),
    )
    op.create_index("ix_game_locations_name", "game_locations", ["name"])
    op.create_table(
        "game_hotspots",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("location_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("object_name", sa.String(200), nullable=False),
        sa.Column("hotspot_id", sa.String(200), nullable=False),
        sa.Column("linked_scene_id", sa.Integer()),
        sa.Column("meta", _JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_game_hotspots"),
        sa.ForeignKeyConstraint(
            ["location_id"],
            ["game_locations.id"],
            name="fk_game_hotspots_location_id_game_locations",
            ondelete="CASCADE",
        ),
        # A scene that is deleted takes its links with it, not the hotspots.
        sa.ForeignKeyConstraint(
            ["linked_scene_id"],
            ["game_scenes.id"],
            name="fk_game_hotspots_linked_scene_id_game_scenes",
            ondelete="SET NULL",
        ),
        sa.UniqueConstraint(
            "location_id", "object_name", "hotspot_id", name="uq_game_hotspots_location_id_object_name_hotspot_id"
        ),
    )
    op.create_index("ix_game_hotspots_linked_scene_id", "game_hotspots", ["linked_scene_id"])


def downgrade() -> None:
    op.drop_table("game_hotspots")
    op.drop_table("game_locations")
