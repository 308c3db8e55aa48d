"""The tables of the desired state."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean, Column, Integer, MetaData, String, Table

from pixsim7_backend.db.models import NAMING_CONVENTION, JsonDict

metadata = MetaData(naming_convention=NAMING_CONVENTION)

plugin_state: Table = Table(
    "plugin_state",
    metadata,
    Column("plugin_id", String(200), primary_key=True),
    Column[Any]("is_on", Boolean, nullable=True),
    Column[Any]("settings", JsonDict, nullable=False),
    Column[Any]("grants", JsonDict, nullable=True),
)

plugin_state_version: Table = Table(
    "plugin_state_version",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
)
"""One row: the version that every change raises, and by which simultaneous ones are told apart."""

plugin_audit: Table = Table(
    "plugin_audit",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("plugin_id", String(200), nullable=False),
    Column[Any]("decision", JsonDict, nullable=False),
)
"""Decisions about permissions, in order; rows are only ever added."""
