"""What a plugin's models are made of: a base of its own, column types and small mixins.

    Base = plugin_base("game-sessions")

    class GameSession(Timestamps, RowVersion, Base):
        __tablename__ = "game_sessions"
        id: Mapped[int] = mapped_column(primary_key=True)
        flags: Mapped[dict[str, Any]] = mapped_column(default=dict)   # JsonDict

``Mapped[dict[str, Any]]`` is a :class:`JsonDict`, ``Mapped[list[Any]]`` a :class:`JsonList` and
``Mapped[datetime]`` a :class:`UtcDateTime`. References to another plugin's tables are plain columns
here and foreign keys in the migration.
"""

from __future__ import annotations

import types
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar
from weakref import WeakSet

from sqlalchemy import Integer, MetaData
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column, registry

from pixsim7_backend.infrastructure.plugins import current_owner

from .database import forget_statements
from .tracking import track_json_columns
from .types import JsonDict, JsonList, UtcDateTime

__all__ = [
    "NAMING_CONVENTION",
    "CommunityAccess",
    "JsonDict",
    "JsonList",
    "PluginBase",
    "RowVersion",
    "Timestamps",
    "UtcDateTime",
    "community_access",
    "dispose_plugin_base",
    "iter_plugin_bases",
    "plugin_base",
    "utc_now",
]

NAMING_CONVENTION = {
    "ix": "ix_%(column_0_N_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

_TYPES: dict[Any, Any] = {
    dict[str, Any]: JsonDict,
    list[Any]: JsonList,
    list[str]: JsonList,
    list[int]: JsonList,
    list[dict[str, Any]]: JsonList,
    datetime: UtcDateTime,
}

_bases: WeakSet[type[PluginBase]] = WeakSet()


class PluginBase(DeclarativeBase):
    """Common part of all plugins' models; get one for a plugin with :func:`plugin_base`."""

    __abstract__ = True
    plugin_id: ClassVar[str] = ""
    community_read: ClassVar[Collection[str]] = frozenset()
    """Names of the columns that community plugins may be granted to read."""
    community_write: ClassVar[Collection[str]] = frozenset()
    """Names of the columns that community plugins may be granted to write."""


track_json_columns(PluginBase)  # once: SQLAlchemy never lets go of a class on which it listens


def plugin_base(plugin_id: str) -> type[PluginBase]:
    """Return a new declarative base with a registry and MetaData of its own.

    Each call makes a new one, so that a reloaded plugin can define its models again beside the old
    generation. The platform gives it up with the plugin's code; one that was made elsewhere is given up
    with :func:`dispose_plugin_base`.
    """
    own = registry(metadata=MetaData(naming_convention=NAMING_CONVENTION), type_annotation_map=_TYPES)
    name = "".join(part.title() for part in plugin_id.split("-")) + "Base"
    members = {
        "__abstract__": True,
        "__module__": __name__,
        "plugin_id": plugin_id,
        "metadata": own.metadata,
        "registry": own,
        "_sa_registry": own,
    }
    base: type[PluginBase] = types.new_class(name, (PluginBase,), exec_body=lambda body: body.update(members))
    _bases.add(base)
    owner = current_owner()
    if owner is not None:  # a generation of a plugin, whose models go when its code does
        owner.ledger.add_release("models", name, partial(dispose_plugin_base, plugin_id, base))
    return base


def iter_plugin_bases(plugin_id: str | None = None) -> tuple[type[PluginBase], ...]:
    """Return the bases that live, of this plugin or of all; of one several only while a generation replaces another."""
    return tuple(base for base in _bases if plugin_id in (None, base.plugin_id))


def dispose_plugin_base(plugin_id: str, base: type[PluginBase] | None = None) -> None:
    """Let go of the plugin's mappers, of all its bases or only of ``base``; unknown ids are fine."""
    for each in iter_plugin_bases(plugin_id) if base is None else (base,):
        _bases.discard(each)
        each.registry.dispose()
        each.metadata.clear()
    forget_statements()


def utc_now() -> datetime:
    """Return the present time, aware, in UTC."""
    return datetime.now(UTC)


class Timestamps:
    """Adds ``created_at`` and ``updated_at``, set by us, so that both databases keep microseconds."""

    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now, sort_order=900)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=utc_now, onupdate=utc_now, sort_order=901)


class RowVersion:
    """Adds ``version``, which every UPDATE raises by one; a write over a newer row is a StaleDataError."""

    version: Mapped[int] = mapped_column(Integer, nullable=False, sort_order=902)

    @declared_attr.directive
    @classmethod
    def __mapper_args__(cls) -> dict[str, Any]:
        """Tell the mapper which column counts the versions."""
        return {"version_id_col": cls.version}


@dataclass(frozen=True, slots=True)
class CommunityAccess:
    """Which columns of a model its owner opens to community plugins."""

    read: frozenset[str]
    write: frozenset[str]


def community_access(model: type[PluginBase]) -> CommunityAccess:
    """Return what the model opens.

    Raises:
        ValueError: it names a column that the table does not have.
    """
    access = CommunityAccess(frozenset(model.community_read), frozenset(model.community_write))
    unknown = (access.read | access.write) - set(model.__table__.columns.keys())
    if unknown:
        raise ValueError(f"{model.__name__} opens unknown columns to community plugins: {', '.join(sorted(unknown))}")
    return access
