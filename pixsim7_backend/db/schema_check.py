"""Compares what a plugin's migrations make with what its models describe."""

from __future__ import annotations

from collections.abc import Iterator
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
        return [_described(each) for each in _flat(_compare(connection, metadata))]


def _compare(connection: Connection, metadata: MetaData) -> Any:
    def include_name(name: str | None, kind: str, _parents: Any) -> bool:
        return kind != "table" or name in metadata.tables

    def include_object(item: Any, _name: str | None, kind: str, _is_reflected: bool, _other: Any) -> bool:
        return kind != "foreign_key_constraint" or _target(item) in metadata.tables

    options = {"compare_type": _compare_type, "include_name": include_name, "include_object": include_object}
    return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)


def _flat(differences: Any) -> Iterator[Any]:
    """Yield each difference; Alembic puts those of one column into a list."""
    for each in differences:
        yield from each if isinstance(each, list) else (each,)


def _described(difference: Any) -> str:
    """Put one of Alembic's tuples into words: ``column things.mood is missing in the database``."""
    kind, *rest = difference
    verb, _, what = kind.partition("_")
    if verb == "modify":
        _schema, table, column, _, found, wanted = rest
        return f"column {table}.{column} differs in {what}: {found!r} in the database, {wanted!r} in the model"
    item = rest[-1]
    table = "" if what == "table" else f"{rest[1] if what == 'column' else item.table.name}."
    fields = f" on {', '.join(each.name for each in item.columns)}" if what in _WITH_COLUMNS else ""
    where = "missing in the database" if verb == "add" else "in the database, but not in the models"
    return f"{_KINDS.get(what, what)} {table}{item.name or '(unnamed)'}{fields} is {where}"


_KINDS = {"fk": "foreign key"}
_WITH_COLUMNS = {"index", "constraint", "fk"}


def _target(constraint: ForeignKeyConstraint) -> str:
    return constraint.elements[0].target_fullname.rpartition(".")[0]


def _compare_type(context: Any, _found: Column[Any], _wanted: Column[Any], found: Any, wanted: Any) -> bool | None:
    """Tell whether types differ; None leaves it to Alembic. SQLite has one kind of float under all its names."""
    if context.dialect.name == "sqlite" and isinstance(found, Float) and isinstance(wanted, Float):
        return False
    return None
