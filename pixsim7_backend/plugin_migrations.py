"""When a plugin's tables are migrated: before it is first enabled, and under running code only by consent."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from pixsim7_backend.db import Database
from pixsim7_backend.db.migrations import MigrationSource, find_source, pending, upgrade
from pixsim7_backend.infrastructure.plugins import PluginError, PluginRecord, PluginState

logger = logging.getLogger("pixsim7.main")


class MigrationsPendingError(PluginError):
    """The plugin's code expects tables that the database does not have yet."""

    state = PluginState.BLOCKED

    def __init__(self, *, plugin: str, revisions: Sequence[str]) -> None:
        super().__init__(
            f"plugin {plugin!r} needs migrations that have not been run ({', '.join(revisions)});"
            f" run `pixsim7 db upgrade` and `pixsim7 plugins reload {plugin}`, or set RELOAD_MIGRATIONS=true, which"
            " `pixsim7 plugins add` needs while a server runs",
            plugin=plugin,
            revisions=tuple(revisions),
        )


class PluginMigrations:
    """The host's step before a generation of a plugin is enabled.

    The embedded database is migrated as needed, since nobody else does it; one that ``DATABASE_URL``
    names is left to ``pixsim7 db upgrade``, and the readiness check says so. While the server runs,
    and always where older code of the plugin serves from the same tables, ``migrates_live`` decides:
    without it a generation with pending migrations is refused.

    ``is_live`` is set once the start is over.
    """

    def __init__(self, database: Database, *, is_embedded: bool, migrates_live: bool) -> None:
        self.is_live = False
        self._database = database
        self._is_embedded = is_embedded
        self._migrates_live = migrates_live

    def __call__(self, record: PluginRecord, package_dir: Path) -> None:
        """Migrate the plugin's tables, or see whether that has been done; of several workers one migrates.

        Raises:
            MigrationsPendingError: it has not, and nobody agreed to it.
        """
        source = find_source(record.id, package_dir)
        if source is None:
            return
        is_serving = record.state is PluginState.ENABLED
        if self._migrates_live or (self._is_embedded and not is_serving):
            if self.is_live or self._is_embedded:
                migrate(self._database, source)
        elif self.is_live and (revisions := pending(self._database, source)):
            raise MigrationsPendingError(plugin=record.id, revisions=revisions)


def migrate(database: Database, source: MigrationSource) -> None:
    """Bring a plugin's tables up to date, and say so; of several processes one does it, the others wait."""
    for step in upgrade(database, [source]).applied:
        logger.info("Migrated the tables of %s to %s", step.plugin_id, step.revision)
