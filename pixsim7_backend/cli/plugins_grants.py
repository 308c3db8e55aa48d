"""``pixsim7 plugins grants``: what confined plugins ask for, and what of it was granted."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from pixsim7_backend.cli.desired import load_desired
from pixsim7_backend.cli.live import find_server
from pixsim7_backend.cli.output import CommandError, JsonFlag, print_json, print_table, say
from pixsim7_backend.cli.plugins import planned, plugin_directories
from pixsim7_backend.infrastructure.plugins import DesiredState, Enforcement, normalize_plugin_id
from pixsim7_backend.infrastructure.plugins._desired import read_grants
from pixsim7_backend.infrastructure.plugins._grants.deciding import GrantsView, trusted_error
from pixsim7_backend.infrastructure.plugins._grants.permissions import Grants
from pixsim7_backend.infrastructure.plugins.errors import PluginNotFoundError
from pixsim7_backend.settings import Settings, load_settings

if TYPE_CHECKING:
    from pixsim7_backend.community.enforcing import CommunityEnforcer

SHOW = "show"
_SHOWN = 3
"""Warnings with a decision; the others are told by ``apply``."""


class _Grants(TyperGroup):
    """Shows, where no command is named: ``grants``, ``grants ID``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        is_named = bool(args) and (args[0] in self.commands or args[0] == "--help")
        return super().parse_args(ctx, args if is_named else [SHOW, *args])


app = typer.Typer(
    name="grants", cls=_Grants, help="Show what confined plugins may do, and let the database and Redis know."
)


@app.command(SHOW)
def show(
    plugin: Annotated[str | None, typer.Argument(metavar="ID", help="Only this plugin.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what each confined plugin asks for, and what of it is granted, declined or undecided."""
    settings = load_settings()
    server = find_server(settings)
    described = server.ask("list") if server is not None else _described(settings)
    described = [each for each in described if each.get("state") != "removed"]
    rows = {each["id"]: each["grants"] for each in described}
    lagging = {each["id"]: [told for told in each.get("enforcement", ()) if told["problem"]] for each in described}
    wanted = normalize_plugin_id(plugin) if plugin else None
    if wanted is not None:
        rows = _only(rows, wanted)
    confined = {each: grants for each, grants in sorted(rows.items()) if grants is not None}
    if as_json:
        print_json(confined)
    elif confined:
        print_table(
            ("plugin", "asks for", "granted", "declined", "undecided"),
            [(each, *map(", ".join, grants.values())) for each, grants in confined.items()],
        )
        for each in confined:
            for line in enforcement_lines(lagging[each]):
                typer.echo(f"{each}: {line}", err=True)
    else:
        say("no plugin is confined here; those in COMMUNITY_PLUGINS_DIR are")


def _described(settings: Settings) -> list[dict[str, Any]]:
    desired = load_desired(settings)
    candidates = planned(settings, desired=desired).candidates
    return [
        {
            "id": each,
            "grants": GrantsView.of(candidate.manifest, read_grants(desired, each)).to_json()
            if candidate.source.is_confined
            else None,
        }
        for each, candidate in candidates.items()
    ]


def _only(rows: Mapping[str, Any], plugin: str) -> dict[str, Any]:
    if plugin not in rows:
        raise PluginNotFoundError(plugin=plugin)
    if rows[plugin] is None:
        raise trusted_error(plugin)
    return {plugin: rows[plugin]}


# --- letting others know --------------------------------------------------------------------------


@app.command()
def apply(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be changed.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Give each confined plugin a role of its own in PostgreSQL and a user in Redis, which may do what was granted.

    Loads the plugins that are trusted, since their models say which tables are open. Doing it twice changes nothing.
    """
    settings = load_settings()
    desired = load_desired(settings)
    candidates = planned(settings, desired=desired).candidates
    plugins = sorted(each for each, candidate in candidates.items() if candidate.source.is_confined)
    done = {each: told for each, told in _apply(settings, desired, plugins, dry_run=dry_run) if told}
    if not dry_run and (server := find_server(settings)) is not None:
        server.ask("follow_grants")
    if as_json:
        rows = [{"plugin": plugin, **each.to_json()} for plugin, told in done.items() for each in told]
        print_json({"dry_run": dry_run, "applied": rows})
    else:
        _tell(done)
    if any(each.problem for told in done.values() for each in told):
        raise typer.Exit(1)


def _tell(done: Mapping[str, Sequence[Enforcement]]) -> None:
    for plugin, told in done.items():
        for each in told:
            say(f"{plugin} as {each.role}:")
            for line in each.changes or ["nothing to change"]:
                say(f"  {line}")
            for line in [*([str(each)] if each.problem else []), *each.warnings]:
                typer.echo(f"warning: {plugin}: {line}", err=True)
    if not done:
        say("nothing to do: no plugin is confined here, or the database is embedded and there is no Redis")


def _apply(
    settings: Settings, desired: DesiredState, plugins: Sequence[str], *, dry_run: bool
) -> Iterator[tuple[str, tuple[Enforcement, ...]]]:
    enforcer = _enforcer_of(settings)
    if not plugins or (settings.is_embedded and not settings.redis_url.get_secret_value()):
        return
    with known_models(settings, plugin_directories(settings)):
        for each in plugins:
            yield each, enforcer.apply(each, read_grants(desired, each), dry_run=dry_run)


def follow_offline(settings: Settings, plugin: str, grants: Grants) -> list[dict[str, Any]]:
    """Let the database and Redis follow a decision that was made without a server; return how far that got."""
    enforcer = _enforcer_of(settings)
    with known_models(settings, plugin_directories(settings)):
        return [each.to_json() for each in enforcer.enforce(plugin, grants)]


def look_offline(settings: Settings, grants: Grants) -> list[dict[str, Any]]:
    """Return which grants are of no use; only tables that are named can be, so that else nothing is loaded."""
    if not any(each.family == "db" and each.items for each in grants.granted):
        return []
    enforcer = _enforcer_of(settings)
    with known_models(settings, plugin_directories(settings)):
        return [each.to_json() for each in enforcer.look(grants)]


def enforcement_lines(told: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield how far a decision got where else it is enforced, on a line each."""
    for each in told:
        if each["problem"]:
            yield f"warning: {each['where']} lags behind this decision: {each['problem']}; {each['way_out']}"
        elif each["changes"]:
            yield f"{each['where']} follows: {each['as']}"
        left = each["warnings"]
        yield from (f"warning: {line}" for line in left[:_SHOWN])
        if left[_SHOWN:]:
            yield f"warning: and {len(left) - _SHOWN} more; `pixsim7 plugins grants apply` lists them"


def revoke_all(settings: Settings, plugin: str) -> None:
    """Take from a confined plugin's role and user what they may do; its own tables stay."""
    enforcer = _enforcer_of(settings)
    for each in enforcer.enforce(plugin, Grants()):
        if each.problem:
            typer.echo(f"warning: {plugin} was removed, but {each}", err=True)


def forget_roles(settings: Settings, plugin: str) -> None:
    """Delete what a confined plugin has in the database and Redis: own tables, role and user with all that is theirs.

    Raises:
        CommandError: it is left there.
    """
    try:
        if settings.database.startswith("postgres"):
            from pixsim7_backend.community.database.roles import remove_role

            remove_role(settings.database, plugin, data_dir=settings.data_dir)
        else:
            from pixsim7_backend.community.database.own_file import remove_own_file

            remove_own_file(settings.data_dir, plugin)
        if url := settings.redis_url.get_secret_value():
            from pixsim7_backend.community.redis.users import remove_redis_user

            remove_redis_user(url, plugin, data_dir=settings.data_dir)
    except Exception as error:  # of either library, neither of which need be installed
        problem = str(error).splitlines()[0]
        raise CommandError(f"{plugin} was removed, but its role or user could not be deleted: {problem}") from error


def _enforcer_of(settings: Settings) -> CommunityEnforcer:
    from pixsim7_backend.resources import enforcer_of  # brings SQLAlchemy, which few commands need

    return enforcer_of(settings)


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep what loading plugins tells of itself from what the command says; warnings are shown."""
    logger = logging.getLogger("pixsim7.plugins")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def known_models(
    settings: Settings, directories: Sequence[str], *, disabled: Sequence[str] | None = None
) -> Iterator[None]:
    """Load the code of the trusted plugins in these directories, whose models say which tables are open."""
    from fastapi import FastAPI

    from pixsim7_backend.infrastructure.plugins import init_plugin_manager
    from pixsim7_backend.infrastructure.plugins._store import MemoryStateStore
    from pixsim7_backend.resources import CHECKS, configured

    directory, *more = directories
    with configured(settings), _quietly():
        manager = init_plugin_manager(
            FastAPI(),
            directory,
            more_directories=more,
            disabled=disabled,
            resources=CHECKS,
            store=MemoryStateStore(),
        )
        try:
            yield
        finally:
            manager.close()
