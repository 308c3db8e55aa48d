"""``/healthz``: the process answers. ``/readyz``: it can do its work, and if not, why.

Not ready (503): the database does not answer or its migrations are pending, Redis is configured and
does not answer, a required plugin is not enabled, or none is. Other plugins that failed or are blocked are *degraded*:
they are listed, but the server keeps taking requests, since one bad plugin must not take down the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from pixsim7_backend.db import Database, DataLayerError
from pixsim7_backend.db.migrations import MigrationSource, pending
from pixsim7_backend.infrastructure.plugins import PluginManager, PluginRecord, PluginState
from pixsim7_backend.infrastructure.plugins.preview import ResourceCheck

router = APIRouter(tags=["health"])


class Check(BaseModel):
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "degraded", "failing"]
    reason: str | None = None


class Readiness(BaseModel):
    """``ready`` is False when any check is failing."""

    ready: bool
    checks: list[Check]


@router.get("/healthz")
async def healthz() -> dict[str, Literal["ok"]]:
    """Answer as long as the event loop turns."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"model": Readiness, "description": "Not ready; the failing checks say why"}})
async def readyz(request: Request, response: Response) -> Readiness:
    """Look at the database, Redis where configured, and the plugins."""
    checks: dict[str, ResourceCheck] = getattr(request.app.state, "readiness_checks", {})
    results = [await run_sync(_look, name, check) for name, check in checks.items()]
    results += plugin_checks(getattr(request.app.state, "plugin_manager", None))
    readiness = Readiness(ready=all(each.state != "failing" for each in results), checks=results)
    if not readiness.ready:
        response.status_code = 503
    return readiness


class MigrationsCheck:
    """Are the tables what the loaded plugins expect? Once they are, the database is not asked again."""

    def __init__(self, database: Database, sources: Sequence[MigrationSource]) -> None:
        self._database = database
        self._waiting = list(sources)

    def __call__(self) -> str | None:
        """Return None, or which plugins' migrations are pending and what to run."""
        try:
            self._waiting = [source for source in self._waiting if pending(self._database, source)]
        except (DataLayerError, SQLAlchemyError) as error:
            return f"cannot tell: {str(error).splitlines()[0]}"
        names = ", ".join(source.plugin_id for source in self._waiting)
        return f"pending for {names}; run `pixsim7 db upgrade`" if names else None


def _look(name: str, check: ResourceCheck) -> Check:
    problem = check()
    return Check(name=name, state="failing" if problem else "ok", reason=problem)


def plugin_checks(manager: PluginManager | None) -> Iterator[Check]:
    """Yield one check for the plugins as a whole, and one for each that is not as it should be."""
    records = list(manager.iter_records()) if manager else []
    if manager is not None and manager.settings.safe_mode:
        yield Check(name="safe mode", state="degraded", reason="only what the required plugins need was started")
    if any(record.state is PluginState.ENABLED for record in records):
        yield Check(name="plugins", state="ok")
    else:
        yield Check(name="plugins", state="failing", reason="no plugin is enabled; the log of the start-up says why")
    for record in records:
        if _is_needed(record) and record.state is not PluginState.ENABLED:
            yield _trouble(record, "failing")
        elif record.state in (PluginState.BLOCKED, PluginState.FAILED):
            yield _trouble(record, "degraded")


def _is_needed(record: PluginRecord) -> bool:
    return bool(record.manifest and record.manifest.required and record.source.is_trusted)


def _trouble(record: PluginRecord, state: Literal["degraded", "failing"]) -> Check:
    reason = f"{record.state}: {record.reason}" if record.reason else str(record.state)
    return Check(name=f"plugin {record.id}", state=state, reason=reason)
