"""``pixsim7 db``: bring the tables of all plugins to the state that their code expects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from pixsim7_backend.cli.output import CommandError, JsonFlag, print_json, print_table, say, show_progress
from pixsim7_backend.cli.plugins import plugin_directories
from pixsim7_backend.infrastructure.plugins.preview import preview
from pixsim7_backend.settings import Settings, load_settings

if TYPE_CHECKING:
    from pixsim7_backend.db import Database
    from pixsim7_backend.db.migrations import AppliedRevision, MigrationSource

app = typer.Typer(name="db", help="Manage the database.", no_args_is_help=True)


@app.command()
def upgrade(as_json: JsonFlag = False) -> None:
    """Run the migrations that are pending, plugin by plugin in load order; safe while others do the same."""
    settings = load_settings()
    with opened(settings) as database:
        applied = _upgrade(database, migration_sources(settings), is_shown=not as_json)
    if as_json:
        print_json({"applied": [{"plugin": each.plugin_id, "revision": each.revision} for each in applied]})
    elif applied:
        say("\n".join(f"{each.plugin_id}: {each.revision}" for each in applied))
    else:
        say("nothing to do: every plugin's tables are up to date")


@app.command()
def current(as_json: JsonFlag = False) -> None:
    """Show at which revision each plugin's tables stand, and what is pending; exit status 1 if anything is."""
    from pixsim7_backend.db import migrations

    settings = load_settings()
    with opened(settings) as database:
        rows = [
            {
                "plugin": source.plugin_id,
                "revision": migrations.current(database, source),
                "pending": list(migrations.pending(database, source)),
            }
            for source in migration_sources(settings)
        ]
    if as_json:
        print_json(rows)
    else:
        cells = [(str(row["plugin"]), str(row["revision"] or "-"), _listed(row["pending"])) for row in rows]
        print_table(("plugin", "revision", "pending"), cells)
    if any(row["pending"] for row in rows):
        raise typer.Exit(1)


def migration_sources(settings: Settings) -> list[MigrationSource]:
    """Return the migrations of every plugin that a start-up would load, in load order, then the platform's own."""
    from pixsim7_backend.db.migrations import find_source
    from pixsim7_backend.plugin_store import MIGRATIONS

    plan = preview(
        plugin_directories(settings),
        community_directory=settings.community_plugins_dir,
        isolation=settings.isolation,
        resources={"db": lambda: None, "redis": lambda: None},
    )
    trusted = [each for each in plan.order if not plan.candidates[each].source.is_confined]  # migrations are code
    found = (find_source(plugin_id, plan.candidates[plugin_id].source.path) for plugin_id in trusted)
    return [*(source for source in found if source is not None), MIGRATIONS]


def pending_migrations(settings: Settings) -> list[str]:
    """Return the ids of plugins whose tables are behind.

    Raises:
        CommandError: the database does not answer, or a plugin's migrations cannot be used.
    """
    from pixsim7_backend.db.migrations import pending

    with opened(settings) as database:
        return [source.plugin_id for source in migration_sources(settings) if pending(database, source)]


@contextmanager
def opened(settings: Settings) -> Iterator[Database]:
    """Give the configured database, which answers; what goes wrong in it becomes one sentence.

    Raises:
        CommandError: the setting is wrong, the database does not answer, or something in it failed.
    """
    from pixsim7_backend.db import DataLayerError, check_database
    from pixsim7_backend.resources import configured

    try:
        with configured(settings) as database:
            if problem := check_database():
                raise CommandError(problem)
            yield database
    except DataLayerError as error:
        raise CommandError(str(error)) from error


@contextmanager
def ready_database(settings: Settings) -> Iterator[Database]:
    """Give the configured database with up-to-date tables: the embedded one is upgraded first, as a start-up does.

    Raises:
        CommandError: as :func:`opened`, or migrations are pending.
    """
    from pixsim7_backend.db.migrations import pending

    with opened(settings) as database:
        sources = migration_sources(settings)
        if settings.is_embedded:
            _upgrade(database, sources, is_shown=False)
        elif behind := [source.plugin_id for source in sources if pending(database, source)]:
            raise CommandError(f"migrations are pending ({', '.join(behind)}); run `pixsim7 db upgrade` first")
        yield database


def _upgrade(database: Database, sources: list[MigrationSource], *, is_shown: bool) -> list[AppliedRevision]:
    from pixsim7_backend.db import migrations

    steps = show_progress(sources, "Upgrading", is_shown=is_shown)
    return [revision for source in steps for revision in migrations.upgrade(database, [source]).applied]


def _listed(names: object) -> str:
    return ", ".join(names) if isinstance(names, list) else ""
