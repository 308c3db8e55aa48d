"""What the operator wants of the plugins, kept in the backend's database: all servers on it share it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from pixsim7_backend.db import Database, DataLayerError
from pixsim7_backend.db.migrations import MigrationSource, pending, upgrade
from pixsim7_backend.infrastructure.plugins import DesiredState
from pixsim7_backend.infrastructure.plugins.errors import StateConflictError, StateUnavailableError

from .tables import plugin_audit, plugin_state, plugin_state_version

__all__ = ["MIGRATIONS", "DatabaseStateStore"]

MIGRATIONS = MigrationSource("platform", Path(__file__).parent / "migrations", "_platform")
"""The platform's own tables; no plugin's folder starts with an underscore and has its version table."""

_ROW = 1


class DatabaseStateStore:
    """Keeps the desired state in three small tables; see :class:`StateStore` for the contract.

    With ``migrates`` the tables are brought up to date when they are first read, as for the embedded
    database; otherwise ``pixsim7 db upgrade`` does that.
    """

    def __init__(self, database: Database, *, migrates: bool = False) -> None:
        self._database = database
        self._migrates = migrates

    def load(self) -> DesiredState:
        try:
            self._check_tables()
            with self._database.readonly_session() as session:
                rows = session.execute(select(plugin_state)).all()
                audit = _audit(session)
                version = _version(session)
        except (SQLAlchemyError, DataLayerError, OSError) as error:
            raise self._unavailable(error) from error
        return DesiredState(
            switched={row.plugin_id: row.is_on for row in rows if row.is_on is not None},
            settings={row.plugin_id: row.settings for row in rows if row.settings},
            grants={row.plugin_id: row.grants for row in rows if row.grants},
            audit=audit,
            version=version,
        )

    def save(self, state: DesiredState, *, expected_version: int) -> DesiredState:
        try:
            with self._database.session() as session:
                _raise_version(session, expected_version)
                session.execute(delete(plugin_state))
                if rows := _rows(state):
                    session.execute(insert(plugin_state), rows)
                audit = _add_to_audit(session, state)
        except IntegrityError as error:  # two first changes at once
            raise StateConflictError(plugin="", expected=expected_version, found=1) from error
        except (SQLAlchemyError, DataLayerError, OSError) as error:
            raise self._unavailable(error) from error
        return replace(state, audit=audit, version=expected_version + 1)

    def _check_tables(self) -> None:
        if self._migrates:
            upgrade(self._database, [MIGRATIONS])
        elif pending(self._database, MIGRATIONS):
            raise StateUnavailableError(
                place=str(self._database),
                problem="its tables are not up to date",
                way_out="run `pixsim7 db upgrade`, then restart",
            )

    def _unavailable(self, error: Exception) -> StateUnavailableError:
        return StateUnavailableError(
            place=str(self._database),
            problem=str(error).splitlines()[0],
            way_out="see to it that the database answers (DATABASE_URL), then restart",
        )


def _version(session: Session) -> int:
    return session.scalar(select(plugin_state_version.c.version)) or 0


def _raise_version(session: Session, expected: int) -> None:
    """Take the next version in this transaction; whoever wants the same one waits, then finds it taken."""
    taken = update(plugin_state_version).where(plugin_state_version.c.version == expected).values(version=expected + 1)
    if session.execute(taken).rowcount == 1:  # type: ignore[attr-defined]
        return
    if (found := _version(session)) != expected:
        raise StateConflictError(plugin="", expected=expected, found=found)
    session.execute(insert(plugin_state_version).values(id=_ROW, version=expected + 1))


def _rows(state: DesiredState) -> list[dict[str, Any]]:
    return [
        {
            "plugin_id": each,
            "is_on": state.switched.get(each),
            "settings": dict(state.settings.get(each, {})),
            "grants": dict(state.grants[each]) if each in state.grants else None,
        }
        for each in sorted({*state.switched, *state.settings, *state.grants})
    ]


def _add_to_audit(session: Session, state: DesiredState) -> tuple[Any, ...]:
    """Add the decisions that are not there yet, and return all; those that are there stay as they are."""
    kept = _audit(session)
    new = state.audit[len(kept) :]
    if new:
        rows = enumerate(new, start=len(kept))
        session.execute(
            insert(plugin_audit),
            [{"number": number, "plugin_id": each["plugin"], "decision": dict(each)} for number, each in rows],
        )
    return (*kept, *new)


def _audit(session: Session) -> tuple[Any, ...]:
    return tuple(session.scalars(select(plugin_audit.c.decision).order_by(plugin_audit.c.number)))
