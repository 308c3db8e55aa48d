"""``pixsim7 plugins add``, ``rollback`` and ``remove``: which plugins are there, also while a server runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer

from pixsim7_backend.cli.live import find_server
from pixsim7_backend.cli.output import CommandError, JsonFlag, print_json, say
from pixsim7_backend.cli.plugins import planned, plugin_directories
from pixsim7_backend.cli.plugins_grants import enforcement_lines, follow_offline, forget_roles, revoke_all
from pixsim7_backend.cli.plugins_switch import grant_lines
from pixsim7_backend.infrastructure.plugins._desired import read_grants
from pixsim7_backend.infrastructure.plugins._discovery.sources import Community, find_directory
from pixsim7_backend.infrastructure.plugins._grants.deciding import view_json
from pixsim7_backend.infrastructure.plugins._grants.permissions import Grants
from pixsim7_backend.infrastructure.plugins._installing.install import (
    DataMode,
    Installation,
    Installer,
    Limits,
    Removal,
)
from pixsim7_backend.settings import Settings, load_settings

Into = Annotated[
    str | None,
    typer.Option(
        "--into", help="Plugin directory; default: where it is, else COMMUNITY_PLUGINS_DIR, whose plugins run confined."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would happen.")]
Grant = Annotated[
    list[str] | None,
    typer.Option(
        "--grant",
        metavar="PERMISSION",
        help="Grant this to a confined plugin before it starts (repeatable; also db, all or none); what it asks for"
        " besides stays undecided, and holds it back.",
    ),
]
_AS_STORED: Mapping[str, Grants] = MappingProxyType({})


def add(  # noqa: PLR0917  # the command line names them
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder, an archive (zip, tar) or a git checkout.")],
    into: Into = None,
    upgrade: Annotated[bool, typer.Option("--upgrade", help="Replace the version that is installed.")] = False,
    dirty: Annotated[
        bool, typer.Option("--dirty", help="Install what is committed, although the checkout has other changes.")
    ] = False,
    grant: Grant = None,
    dry_run: DryRun = False,
    as_json: JsonFlag = False,
) -> None:
    """Install a plugin; nothing of it is run before everything is checked and in place.

    On a running server it serves when the command returns; when it does not start there, the files
    become what they were.
    """
    settings = load_settings()
    with installer(settings, _target(settings, into)) as made:
        act = made.preview_add if dry_run else made.add
        done = act(path, upgrade=upgrade, allow_dirty=dirty, grant=grant or None)
    told = _enforcement(settings, done) if grant and not dry_run else []
    if as_json:
        print_json({**done.to_json(), "enforcement": told})
        return
    say(describe(done))
    if grant:
        for line in (*grant_lines(view_json(done.grants)), *enforcement_lines(told)):
            say(f"  {line}")


def rollback(
    plugin: Annotated[str, typer.Argument(metavar="ID")],
    into: Into = None,
    dry_run: DryRun = False,
    as_json: JsonFlag = False,
) -> None:
    """Put the version back that the last upgrade replaced; the present one is kept in its place."""
    settings = load_settings()
    with installer(settings, _home_of(settings, plugin, into)) as made:
        done = made.preview_roll_back(plugin) if dry_run else made.roll_back(plugin)
    _show(done, as_json=as_json)


def remove(  # noqa: PLR0917  # the command line names them
    plugin: Annotated[str, typer.Argument(metavar="ID")],
    data: Annotated[
        DataMode | None, typer.Option("--data", help="What becomes of its rows; asked for where it is left out.")
    ] = None,
    cascade: Annotated[bool, typer.Option("--cascade", help="Stop the plugins that need it.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    into: Into = None,
    dry_run: DryRun = False,
    as_json: JsonFlag = False,
) -> None:
    """Remove a plugin: its files, and with them its rows where that is asked for."""
    settings = load_settings()
    mode = data or (DataMode.KEEP if dry_run or yes else _ask_for_mode(plugin))
    with installer(settings, _home_of(settings, plugin, into)) as made:
        decided = made.preview_remove(plugin, data=mode, cascade=cascade)
        if not dry_run:
            _confirm(decided, is_sure=yes)
            decided = made.remove(plugin, data=mode, cascade=cascade)
            if decided.is_confined:
                leave = forget_roles if mode is DataMode.DROP else revoke_all
                leave(settings, decided.plugin)
    if as_json:
        print_json(decided.to_json())
    else:
        say(describe_removal(decided))


# --- what they work with --------------------------------------------------------------------------


@contextmanager
def installer(settings: Settings, into: Path) -> Iterator[Installer]:
    """Give what installs into a directory, with the configured database and the server that runs, if one does.

    Raises:
        CommandError: the database does not answer, a plugin's migrations cannot be used, or the disk is full.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from pixsim7_backend.cli.desired import NextStart, load_desired, read_desired
    from pixsim7_backend.community.database.own_tables import reading_own_tables
    from pixsim7_backend.db import Database, DataLayerError, check_database
    from pixsim7_backend.plugin_data import PluginTables
    from pixsim7_backend.resources import configured

    found = planned(settings).candidates.values()  # which also says of wrong settings what is wrong with them
    confined = frozenset(each.id for each in found if each.source.is_confined)
    community = _community(settings, into)
    is_trusted = any(find_directory(each).resolve() == into.resolve() for each in plugin_directories(settings))
    is_searched = is_trusted or community is not None
    server = find_server(settings) if is_searched else None
    if not is_searched:
        typer.echo(f"note: {into} is not searched for plugins; add it to EXTRA_PLUGINS_DIRS", err=True)
    desired = read_desired(settings)
    database = Database(settings.database)
    try:
        yield Installer(
            into,
            make_plan=lambda revise, grants=_AS_STORED, /: planned(
                settings, None, revise, desired=desired, grants=grants
            ),
            granted=partial(read_grants, desired),
            follower=server or NextStart(settings),
            stored=PluginTables(
                database,
                settings.data_dir / "exports",
                lambda: load_desired(settings, migrates=True),
                confined=lambda: confined,
                own_tables=lambda plugin: reading_own_tables(database, plugin, data_dir=settings.data_dir),
            ),
            limits=limits_of(settings),
            community=community,
        )
    except DataLayerError as error:
        raise CommandError(str(error)) from error
    except SQLAlchemyError as error:
        with configured(settings):
            raise CommandError(check_database() or f"the database failed: {str(error).splitlines()[0]}") from error
    except OSError as error:
        raise CommandError(f"{error.filename or into}: {error.strerror or error}; mend that and repeat") from error
    finally:
        database.close()


def limits_of(settings: Settings) -> Limits:
    """Return how large a plugin may be."""
    return Limits(
        total_bytes=settings.install_max_bytes,
        file_bytes=settings.install_max_file_bytes,
        members=settings.install_max_files,
        ratio=settings.install_max_ratio,
        depth=settings.install_max_depth,
    )


def _target(settings: Settings, into: str | None) -> Path:
    """Return the plugin directory to install into; one that is named need not exist."""
    if into is not None:
        return Path(os.path.abspath(into))  # noqa: PTH100  # links are not followed, as in discovery
    return Path(os.path.abspath(settings.community_plugins_dir))  # noqa: PTH100  # the same


def _community(settings: Settings, into: Path) -> Community | None:
    """Return the strangers' directory, if that is the one to install into."""
    community = Community.at(settings.community_plugins_dir, settings.isolation)
    is_it = community is not None and community.directory.resolve() == into.resolve()
    return community if is_it else None


def _home_of(settings: Settings, plugin: str, into: str | None) -> Path:
    """Return the plugin directory in which a plugin is, else the one to install into."""
    from pixsim7_backend.infrastructure.plugins import normalize_plugin_id

    found = planned(settings).candidates.get(normalize_plugin_id(plugin))
    if into is None and found is not None:
        return found.source.path.parent
    return _target(settings, into)


def _enforcement(settings: Settings, done: Installation) -> list[dict[str, Any]]:
    """Return how far a decision got that was made with an installation, where else it is enforced."""
    from pixsim7_backend.cli.desired import load_desired

    if (server := find_server(settings)) is not None:
        return list(server.ask("get", id=done.plugin)["enforcement"])
    return follow_offline(settings, done.plugin, read_grants(load_desired(settings), done.plugin))


# --- asking and telling ---------------------------------------------------------------------------


def _ask_for_mode(plugin: str) -> DataMode:
    with _asking("add --data keep, --data export or --data drop"):
        answer = typer.prompt(f"What about the rows of {plugin!r}? keep, export or drop", default="keep", err=True)
    try:
        return DataMode(answer.strip().lower())
    except ValueError:
        raise CommandError(f"{answer!r} is neither keep, export nor drop; nothing was removed", exit_status=2) from None


def _confirm(decided: Removal, *, is_sure: bool) -> None:
    if is_sure or decided.data is not DataMode.DROP:
        return
    with _asking("add --yes"):
        is_sure = typer.confirm(f"Delete all tables of {decided.plugin!r} with what they hold?", err=True)
    if not is_sure:
        raise CommandError("nothing was removed")


@contextmanager
def _asking(way_out: str) -> Iterator[None]:
    """Say what to add where nobody is there to be asked."""
    try:
        yield
    except typer.Abort:
        raise CommandError(f"nobody answered; nothing was removed; {way_out}", exit_status=2) from None


def _show(done: Installation, *, as_json: bool) -> None:
    if as_json:
        print_json(done.to_json())
    else:
        say(describe(done))


def describe(done: Installation) -> str:
    """Return an installation in a few lines."""
    versions = f"{done.former_version} → {done.version}" if done.former_version else done.version
    state = "would be done" if done.is_dry_run else "serving now" if done.is_live else "done"
    lines = [f"{done.action} {done.plugin} {versions} ({done.directory}): {state}"]
    if done.permissions:
        asked = (
            f"{each} (new)" if each in done.new_permissions and done.former_version else each
            for each in done.permissions
        )
        lines.append(f"  asks for: {', '.join(asked)}")
    if done.starts:
        lines.append(f"  starts: {', '.join(done.starts)}")
    if done.migrations:
        lines.append(f"  migrations to run: {', '.join(done.migrations)}")
    lines += [f"  held back: {each}: {why}" for each, why in done.held.items()]
    if done.left_out:
        lines.append(f"  left out: {len(done.left_out)} compiled files, which Python makes anew")
    return "\n".join(lines)


def describe_removal(done: Removal) -> str:
    """Return a removal in a few lines."""
    state = "would be removed" if done.is_dry_run else "removed"
    rows = {
        DataMode.KEEP: "its rows and settings stay",
        DataMode.DROP: "its tables are dropped, its settings forgotten",
        DataMode.EXPORT: "its rows and settings stay, too",
    }
    lines = [f"{done.plugin} {done.version} ({done.directory}): {state}; {rows[done.data]}"]
    if others := [each for each in done.stops if each != done.plugin]:
        lines.append(f"  stops too: {', '.join(others)}")
    if done.exported_to:
        lines.append(f"  exported to {done.exported_to}")
    return "\n".join(lines)
