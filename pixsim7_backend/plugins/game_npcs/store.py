"""NPCs in the database: found, made, changed. Callers commit; events are told after the commit."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from pixsim7_backend.infrastructure.plugins import PluginEvents, plugin_hooks
from pixsim7_backend.plugins.game_locations import check_assets, require_locations
from pixsim7_backend.problems import NotFound

from .models import GameNpc, NpcExpression, NpcStateRow, NpcStay
from .presence import in_world
from .schemas import Expression, NewNpc, NewNpcState, NewStay, NpcChanges

__all__ = [
    "LocationLeaver",
    "change",
    "create",
    "expressions",
    "find_state",
    "get",
    "get_locked",
    "npcs",
    "put_state",
    "replace_expressions",
    "replace_schedule",
    "schedule",
]


def npcs(*, name: str | None = None, home_location_id: int | None = None) -> Select[GameNpc]:
    """All NPCs, or those of exactly this name or home."""
    wanted = select(GameNpc)
    if name is not None:
        wanted = wanted.where(GameNpc.name == name)
    return wanted if home_location_id is None else wanted.where(GameNpc.home_location_id == home_location_id)


def get(db: Session, npc_id: int) -> GameNpc:
    """Return the NPC.

    Raises:
        NotFound: there is none.
    """
    return _found(db.get(GameNpc, npc_id), npc_id)


def get_locked(db: Session, npc_id: int) -> GameNpc:
    """Return the NPC; it, its schedule, looks and states are kept from other writers until the transaction ends."""
    return _found(db.get(GameNpc, npc_id, with_for_update=True), npc_id)


def _found(npc: GameNpc | None, npc_id: int) -> GameNpc:
    if npc is None:
        raise NotFound("NPC", npc_id)
    return npc


def create(db: Session, new: NewNpc) -> GameNpc:
    """Store a new NPC and announce ``npc:spawned``; UnprocessableContent when its home does not exist."""
    require_locations(db, [new.home_location_id])
    npc = GameNpc(**new.model_dump())
    db.add(npc)
    db.flush()
    plugin_hooks.emit_after_commit(db, PluginEvents.NPC_SPAWNED, npc.id)
    return npc


def change(db: Session, npc: GameNpc, changes: NpcChanges) -> None:
    """Replace the fields that were given; UnprocessableContent when the new home does not exist."""
    require_locations(db, [changes.home_location_id])
    for name, value in changes.model_dump(exclude_unset=True).items():
        setattr(npc, name, value)
    db.flush()


def expressions(db: Session, npc_id: int) -> Sequence[NpcExpression]:
    """The NPC's expressions, in order."""
    return db.scalars(
        select(NpcExpression).where(NpcExpression.npc_id == npc_id).order_by(NpcExpression.position)
    ).all()


def replace_expressions(
    db: Session, npc: GameNpc, new: Sequence[Expression], *, user_id: int
) -> Sequence[NpcExpression]:
    """Make these the NPC's expressions, and return them; ``user_id`` must be able to read their pictures.

    Raises:
        UnprocessableContent: a picture does not exist.
    """
    check_assets(db, [expression.asset_id for expression in new], user_id)
    db.execute(delete(NpcExpression).where(NpcExpression.npc_id == npc.id))
    rows = [NpcExpression(npc_id=npc.id, position=at, **each.model_dump()) for at, each in enumerate(new)]
    db.add_all(rows)
    db.flush()
    return rows


def schedule(db: Session, npc_id: int) -> Sequence[NpcStay]:
    """The NPC's stays, in the order that decides where they overlap."""
    return db.scalars(select(NpcStay).where(NpcStay.npc_id == npc_id).order_by(NpcStay.position)).all()


def replace_schedule(db: Session, npc: GameNpc, new: Sequence[NewStay]) -> Sequence[NpcStay]:
    """Make these the NPC's stays, and return them; UnprocessableContent when a location does not exist."""
    require_locations(db, [stay.location_id for stay in new])
    db.execute(delete(NpcStay).where(NpcStay.npc_id == npc.id))
    rows = [NpcStay(npc_id=npc.id, position=at, **stay.model_dump()) for at, stay in enumerate(new)]
    db.add_all(rows)
    db.flush()
    return rows


def find_state(db: Session, npc_id: int, world_id: int | None) -> NpcStateRow | None:
    """What was set for the NPC in this world, or, for None, outside any; None when nothing was."""
    return db.scalars(select(NpcStateRow).where(NpcStateRow.npc_id == npc_id, in_world(world_id))).one_or_none()


def put_state(db: Session, npc: GameNpc, world_id: int | None, new: NewNpcState) -> NpcStateRow:
    """Set the NPC's state in this world (None: outside any) as a whole.

    ``npc`` must come from :func:`get_locked`: the lock puts concurrent calls in a row, so that each
    ``location:changed`` starts from where the one before it ended.

    Raises:
        UnprocessableContent: the location does not exist.
    """
    require_locations(db, [new.current_location_id])
    row = find_state(db, npc.id, world_id)
    if row is None:
        row = NpcStateRow(npc_id=npc.id, world_id=world_id, current_location_id=None, state={})
        db.add(row)
    row.state = new.state
    _move(db, row, new.current_location_id)
    db.flush()
    return row


def _move(db: Session, row: NpcStateRow, location_id: int | None) -> None:
    before, row.current_location_id = row.current_location_id, location_id
    if before != location_id:
        plugin_hooks.emit_after_commit(db, PluginEvents.LOCATION_CHANGED, row.npc_id, before, location_id)


class LocationLeaver:
    """Provided at the port ``location-occupants``: NPCs put into a location that is deleted are announced to leave it.

    The foreign keys would let go of it too, but tell nobody.
    """

    def leave(self, db: Session, location_id: int) -> None:
        """Clear the stored location of every NPC that was put there, in any world."""
        here = NpcStateRow.current_location_id == location_id
        there = select(NpcStateRow.npc_id).where(here)
        # The NPCs' locks first, as everywhere: whoever is just moving one has finished when we look where it is.
        db.execute(select(GameNpc.id).where(GameNpc.id.in_(there)).order_by(GameNpc.id).with_for_update())
        for row in db.scalars(select(NpcStateRow).where(here).order_by(NpcStateRow.id)):
            _move(db, row, None)
        db.flush()
