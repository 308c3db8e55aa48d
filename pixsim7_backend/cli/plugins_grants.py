"""``pixsim7 plugins grants``: what confined plugins ask for, and what of it was granted."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from pixsim7_backend.cli.desired import load_desired
from pixsim7_backend.cli.live import find_server
from pixsim7_backend.cli.output import CommandError, JsonFlag, print_json, print_table, say
from pixsim7_backend.cli.plugins import planned, plugin_directories
from pixsim7_backend.infrastructure.plugins import DesiredState, normalize_plugin_id
from pixsim7_backend.infrastructure.plugins._desired import read_grants
from pixsim7_backend.infrastructure.plugins._granting import GrantsView, trusted_error
from pixsim7_backend.infrastructure.plugins.errors import PluginNotFoundError
from pixsim7_backend.settings import Settings, load_settings

if TYPE_CHECKING:
    from pixsim7_backend.community.database.openness import Openness

SHOW = "show"


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
    rows = {each["id"]: each["grants"] for each in described}
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
    done = [*_apply_to_database(settings, desired, plugins, dry_run=dry_run)] if plugins else []
    done += _apply_to_redis(settings, desired, plugins, dry_run=dry_run) if plugins else []
    if as_json:
        print_json({"dry_run": dry_run, "applied": done})
        return
    for each in done:
        say(f"{each['plugin']} as {each['as']}:")
        for line in each["changes"] or ["nothing to change"]:
            say(f"  {line}")
        for line in each["warnings"]:
            typer.echo(f"warning: {each['plugin']}: {line}", err=True)
    if not done:
        say("nothing to do: no plugin is confined here, or the database is embedded and there is no Redis")


def _apply_to_database(
    settings: Settings, desired: DesiredState, plugins: list[str], *, dry_run: bool
) -> Iterator[dict[str, Any]]:
    if not settings.database.startswith("postgres"):
        return  # the embedded database has no roles; what was granted is checked statement by statement
    import psycopg

    from pixsim7_backend.community.database.roles import apply_grants

    with _openness(settings) as openness:
        for each in plugins:
            try:
                done = apply_grants(
                    settings.database, each, read_grants(desired, each), openness,
                    data_dir=settings.data_dir, dry_run=dry_run,
                )  # fmt: skip
            except psycopg.Error as error:
                raise CommandError(f"the role of {each} could not be made: {str(error).splitlines()[0]}") from error
            missing = [f"the table {table} is granted and not there; migrate its plugin" for table in done.missing]
            yield {
                "plugin": each,
                "as": f"role {done.role}",
                "changes": list(map(str, done.changes)),
                "warnings": [*missing, *done.left_open],
            }


def _apply_to_redis(
    settings: Settings, desired: DesiredState, plugins: list[str], *, dry_run: bool
) -> list[dict[str, Any]]:
    url = settings.redis_url.get_secret_value()
    if not url:
        return []
    from redis.exceptions import RedisError

    from pixsim7_backend.community.redis.users import apply_redis_grants

    applied = []
    for each in plugins:
        try:
            done = apply_redis_grants(
                url, each, read_grants(desired, each), data_dir=settings.data_dir, dry_run=dry_run
            )
        except RedisError as error:
            raise CommandError(f"the Redis user of {each} could not be made: {error}") from error
        lost = "Redis has no ACL file, so that the user is gone after its restart; apply again then"
        applied.append(
            {
                "plugin": each,
                "as": f"Redis user {done.user}",
                "changes": list(done.rules),
                "warnings": [] if done.is_kept or dry_run or not done.rules else [lost],
            }
        )
    return applied


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
def _openness(settings: Settings) -> Iterator[Openness]:
    """Give what the models of the trusted plugins open, while their code is loaded."""
    from fastapi import FastAPI

    from pixsim7_backend.community.database.openness import present_openness
    from pixsim7_backend.infrastructure.plugins import init_plugin_manager
    from pixsim7_backend.infrastructure.plugins._store import MemoryStateStore
    from pixsim7_backend.resources import CHECKS, configured

    directory, *more = plugin_directories(settings)
    with configured(settings), _quietly():
        manager = init_plugin_manager(
            FastAPI(), directory, more_directories=more, resources=CHECKS, store=MemoryStateStore()
        )
        try:
            yield present_openness()
        finally:
            manager.close()
