"""The base that a plugin's models derive from."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, configure_mappers, mapped_column

from pixsim7_backend.db.models import (
    JsonDict,
    JsonList,
    PluginBase,
    RowVersion,
    Timestamps,
    UtcDateTime,
    community_access,
    dispose_plugin_base,
    iter_plugin_bases,
    plugin_base,
    utc_now,
)


def _define(base: type[PluginBase], **members: Any) -> type[Any]:
    """Return a model of the base, as a plugin's module would make it."""
    fields = {"__tablename__": "things", "__annotations__": {"id": Mapped[int]}, "id": mapped_column(primary_key=True)}
    return type("Thing", (Timestamps, RowVersion, base), {**fields, **members})


@pytest.fixture(autouse=True)
def _dispose() -> Any:
    yield
    dispose_plugin_base("test-things")


def test_each_plugin_has_its_own_registry() -> None:
    """The same class and table names in two plugins do not meet."""
    first, second = plugin_base("test-things"), plugin_base("test-things")
    one, two = _define(first), _define(second)
    assert first.metadata is not second.metadata
    assert one.registry is not two.registry
    assert one.__table__ is not two.__table__
    assert first.plugin_id == one.plugin_id == "test-things"
    assert first.__name__ == "TestThingsBase"
    assert set(iter_plugin_bases("test-things")) == {first, second}


def test_disposing_one_generation_leaves_the_other() -> None:
    """A reload can define its models beside the old ones and then give those up."""
    old, new = plugin_base("test-things"), plugin_base("test-things")
    _define(old)
    thing = _define(new)
    dispose_plugin_base("test-things", old)
    assert iter_plugin_bases("test-things") == (new,)
    assert not old.metadata.tables
    configure_mappers()
    assert thing(id=1).id == 1
    dispose_plugin_base("test-things")
    assert iter_plugin_bases("test-things") == ()
    dispose_plugin_base("never-seen")


def test_a_disposed_generation_is_forgotten() -> None:
    """Nothing of ours keeps the classes of a plugin that was unloaded."""
    base = plugin_base("test-things")
    thing = _define(base)
    thing(id=1)
    dispose_plugin_base("test-things")
    reference = weakref.ref(thing)
    del base, thing
    gc.collect()
    assert reference() is None


def test_a_broken_model_of_one_plugin_does_not_break_another() -> None:
    """Mappers are configured registry by registry."""
    from sqlalchemy.orm import relationship

    broken, fine = plugin_base("test-things"), plugin_base("test-things")
    _define(broken, other=relationship("NoSuchModel"))
    assert _define(fine)(id=1).id == 1


def test_annotations_choose_our_types() -> None:
    """``Mapped[dict]``, ``Mapped[list]`` and ``Mapped[datetime]`` need no column type."""
    base = plugin_base("test-things")
    columns = _columns(base)
    assert isinstance(columns["meta"].type, JsonDict)
    assert isinstance(columns["tags"].type, JsonList)
    assert isinstance(columns["created_at"].type, UtcDateTime)
    assert list(columns.keys())[-3:] == ["created_at", "updated_at", "version"]


def _columns(base: Any) -> Any:
    class Thing(Timestamps, RowVersion, base):  # type: ignore[misc]
        __tablename__ = "things"
        id: Mapped[int] = mapped_column(primary_key=True)
        meta: Mapped[dict[str, Any]] = mapped_column(default=dict)
        tags: Mapped[list[str]] = mapped_column(default=list)

    return Thing.__table__.columns


def test_constraints_have_names() -> None:
    """So that a migration can drop them, on both databases."""
    base = plugin_base("test-things")
    table = _define(
        base,
        __annotations__={"id": Mapped[int], "parent_id": Mapped[int | None], "code": Mapped[str]},
        parent_id=mapped_column(ForeignKey("things.id")),
        code=mapped_column(unique=True),
    ).__table__
    names = {constraint.name for constraint in table.constraints}
    assert names == {"pk_things", "fk_things_parent_id_things", "uq_things_code"}


def test_community_access_is_closed_unless_opened() -> None:
    """Columns are open by name only, and a wrong name is told."""
    closed = community_access(_define(plugin_base("test-things")))
    assert (closed.read, closed.write) == (frozenset(), frozenset())
    opened = community_access(_define(plugin_base("test-things"), community_read=("id",)))
    assert (opened.read, opened.write) == (frozenset({"id"}), frozenset())
    with pytest.raises(ValueError, match="Thing opens unknown columns to community plugins: nmae"):
        community_access(_define(plugin_base("test-things"), community_write={"nmae"}))


def test_now_is_aware() -> None:
    """Times are never naive."""
    assert utc_now().utcoffset() is not None
