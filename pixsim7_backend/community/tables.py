"""The tables of the host that a community plugin may use, as SQLAlchemy knows them.

    from pixsim7_backend.community.tables import open_table

    npcs = open_table("game_npcs")

    @router.get("/names")
    def names(db: ReadOnlyDb) -> list[str]:
        return list(db.scalars(select(npcs.c.name)))

A table has the columns that its owner opens and the operator granted, and no others. In a jail that is what the
host told it at the start; a plugin that runs in the host's process sees all that is open.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column, MetaData, Table

from pixsim7_backend.community.database.columns import read_type
from pixsim7_backend.community.database.openness import Openness, present_openness

__all__ = ["ClosedTableError", "describe_tables", "open_table", "open_tables", "use_described"]


class ClosedTableError(LookupError):
    """A table that is not there, not open, or not granted."""

    def __init__(self, name: str, known: Mapping[str, Any]) -> None:
        super().__init__(
            f"the table {name!r} is not open to this plugin (open: {', '.join(sorted(known)) or 'none'});"
            f' ask for it in the manifest with permissions=["db:read:{name}"], and let the operator grant it'
        )
        self.name = name


class _Jail:
    """What the host told this process, which is one jail."""

    tables: Mapping[str, Table] | None = None


def open_tables() -> Mapping[str, Table]:
    """Return all tables that are open to the plugin, by name."""
    return _Jail.tables if _Jail.tables is not None else _build(describe_tables(present_openness()))


def open_table(name: str) -> Table:
    """Return one of :func:`open_tables`.

    Raises:
        ClosedTableError: it is none.
    """
    tables = open_tables()
    if name not in tables:
        raise ClosedTableError(name, tables)
    return tables[name]


def describe_tables(openness: Openness, read: Mapping[str, frozenset[str]] | None = None) -> dict[str, Any]:
    """Return the tables as JSON-able values, of ``read`` only the columns that are named there."""
    return {
        name: [
            [column.name, list(column.type), column.is_key, column.is_nullable]
            for column in table.columns
            if read is None or column.name in read[name]
        ]
        for name, table in openness.items()
        if read is None or name in read
    }


def use_described(described: Mapping[str, Any]) -> None:
    """Let :func:`open_tables` be these from now on; :func:`describe_tables` made them, in the host."""
    _Jail.tables = _build(described)


def _build(described: Mapping[str, Any]) -> dict[str, Table]:
    metadata = MetaData()
    return {
        name: Table(
            name,
            metadata,
            *(
                Column(column, read_type(kind), primary_key=is_key, nullable=is_nullable)
                for column, kind, is_key, is_nullable in columns
            ),
        )
        for name, columns in described.items()
    }
