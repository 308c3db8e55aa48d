"""Compares what a plugin's migrations make with what its models describe."""

from __future__ import annotations

from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Column, Connection, Float, ForeignKeyConstraint, MetaData

from ._revisions import migration_engine
from .database import Database

__all__ = ["schema_differences"]


def schema_differences(database: Database, metadata: MetaData) -> list[str]:
    """Return how the database differs from the models of ``metadata``; empty when it does not.

    Only the tables of ``metadata`` are looked at, and foreign keys to other plugins' tables are left
    out: those are in the migrations only.
    """
    with migration_engine(database).connect() as connection:
        return [str(difference) for difference in _compare(connection, metadata)]


def _compare(connection: Connection, metadata: MetaData) -> Any:
    def include_name(name: str | None, kind: str, _parents: Any) -> bool:
        return kind != "table" or name in metadata.tables

    def include_object(item: Any, _name: str | None, kind: str, _is_reflected: bool, _other: Any) -> bool:
        return kind != "foreign_key_constraint" or _target(item) in metadata.tables

    options = {"compare_type": _compare_type, "include_name": include_name, "include_object": include_object}
    return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)


def _target(constraint: ForeignKeyConstraint) -> str:
    return constraint.elements[0].target_fullname.rpartition(".")[0]


def _compare_type(context: Any, _found: Column[Any], _wanted: Column[Any], found: Any, wanted: Any) -> bool | None:
    """Tell whether types differ; None leaves it to Alembic. SQLite has one kind of float under all its names."""
    if context.dialect.name == "sqlite" and isinstance(found, Float) and isinstance(wanted, Float):
        return False
    return None
