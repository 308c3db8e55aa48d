"""Which tables and columns their owners open to community plugins, and what of that one plugin was granted.

Owners say so on their models (``community_read``, ``community_write``); what is not named there is closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table

from pixsim7_backend.db.models import PluginBase, community_access, iter_plugin_bases
from pixsim7_backend.infrastructure.plugins._grants.permissions import Grants

from .columns import describe_type

__all__ = ["Access", "Openness", "OpenColumn", "OpenTable", "access_of", "openness_of", "present_openness"]


@dataclass(frozen=True, slots=True)
class OpenColumn:
    """A column that community plugins may be granted."""

    name: str
    type: tuple[Any, ...]
    is_key: bool
    is_nullable: bool
    is_writable: bool


@dataclass(frozen=True, slots=True)
class OpenTable:
    """A table of which something is open."""

    name: str
    plugin: str
    columns: tuple[OpenColumn, ...]

    @property
    def readable(self) -> frozenset[str]:
        """Columns that may be read; what may be written may be read too."""
        return frozenset(column.name for column in self.columns)

    @property
    def writable(self) -> frozenset[str]:
        """Columns that may be changed."""
        return frozenset(column.name for column in self.columns if column.is_writable)


_NOTHING = Grants()

Openness = Mapping[str, OpenTable]
"""By the name of the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What one plugin may do: columns by table, and whether it has tables of its own."""

    read: Mapping[str, frozenset[str]]
    write: Mapping[str, frozenset[str]]
    own: bool
    grants: Grants = _NOTHING
    """What it follows from."""
    open: frozenset[str] = frozenset()
    """The tables of which something is open."""

    @property
    def may_read(self) -> bool:
        """A session of ``get_db_readonly`` is of use."""
        return bool(self.read) or self.own

    @property
    def may_write(self) -> bool:
        """A session of ``get_db`` is of use."""
        return bool(self.write) or self.own

    def admits(self, privilege: str, table: str, column: str | None) -> bool:
        """Tell whether a role of the plugin may have this privilege of PostgreSQL on a column; None: on all.

        A table that is granted and of which nobody says what is open, since its owner is off say, may stay as it was.
        """
        columns = {"SELECT": self.read, "UPDATE": self.write}.get(privilege)
        if columns is None or column is None:
            return False
        if table in self.open:
            return column in columns.get(table, ())
        names = ("db:write",) if privilege == "UPDATE" else ("db:read", "db:write")
        return any(self.grants.allows(name, table) for name in names)


def present_openness() -> Openness:
    """Return what the models open of all plugins whose code runs in this process."""
    return openness_of(
        mapper.class_
        for base in iter_plugin_bases()
        for mapper in base.registry.mappers
        if issubclass(mapper.class_, PluginBase)
    )


def openness_of(models: Iterable[type[PluginBase]]) -> Openness:
    """Return what these models open.

    Raises:
        ValueError: one names a column that it does not have, or whose type cannot be opened.
    """
    tables = (_open(model) for model in models)
    return {table.name: table for table in sorted(tables, key=lambda table: table.name) if table.columns}


def access_of(grants: Grants, openness: Openness) -> Access:
    """Return what of all that is open these grants reach. A table that may be written may be read."""
    write = {
        name: table.writable for name, table in openness.items() if table.writable and grants.allows("db:write", name)
    }
    read = {name: table.readable for name, table in openness.items() if name in write or grants.allows("db:read", name)}
    return Access(read=read, write=write, own=grants.has("db:own"), grants=grants, open=frozenset(openness))


def _open(model: type[PluginBase]) -> OpenTable:
    access = community_access(model)
    table = model.__table__
    assert isinstance(table, Table)
    columns = tuple(
        OpenColumn(
            name=column.name,
            type=tuple(describe_type(column.type)),
            is_key=column.primary_key,
            is_nullable=bool(column.nullable),
            is_writable=column.name in access.write,
        )
        for column in table.columns
        if column.key in access.read | access.write
    )
    return OpenTable(table.name, model.plugin_id, columns)
