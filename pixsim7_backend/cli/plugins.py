"""``pixsim7 plugins``: what the plugins are, now or at the next start. Nothing of them is imported here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any

import typer
from rich.text import Text

from pixsim7_backend.cli.live import LiveServer, find_server
from pixsim7_backend.cli.output import CommandError, JsonFlag, print_json, print_table, say
from pixsim7_backend.infrastructure.plugins import DesiredState, StartupJournal
from pixsim7_backend.infrastructure.plugins._desired import read_grants
from pixsim7_backend.infrastructure.plugins._grants.permissions import Grants
from pixsim7_backend.infrastructure.plugins.errors import ControlSocketError
from pixsim7_backend.infrastructure.plugins.preview import Candidate, Plan, preview, render_graph, render_plan
from pixsim7_backend.settings import Settings, load_settings

app = typer.Typer(name="plugins", help="Look at the plugins, and change them.", no_args_is_help=True)

Directory = Annotated[
    str | None, typer.Option("--dir", help="Plugin directory to look at instead of the configured ones.")
]
_NOTHING_DESIRED = DesiredState()
_COLOURS = {"ready": "green", "enabled": "green", "disabled": "dim", "blocked": "yellow", "failed": "red"}


@app.command("list")
def list_plugins(directory: Directory = None, as_json: JsonFlag = False) -> None:
    """List every plugin: what it is on the server that runs, else what a start-up would make of it."""
    server = None if directory else _find_server(load_settings())
    if server is not None:
        _list_live(server.ask("list"), as_json=as_json)
        return
    rows = plugin_rows(_plan(directory))
    if as_json:
        print_json(rows)
        return
    print_table(
        ("plugin", "version", "start-up", "requires", "why not"),
        [
            (
                row["id"],
                row["version"],
                Text(row["startup"], _COLOURS[row["startup"]]),
                ", ".join(row["dependencies"]),
                row["reason"] or "",
            )
            for row in rows
        ],
    )


def _list_live(plugins: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json(plugins)
        return
    print_table(
        ("plugin", "version", "state", "wanted", "requires", "why not"),
        [
            (
                each["id"],
                each["version"],
                Text(each["state"], _COLOURS.get(each["state"], "")),
                _wanted(each["desired"]),
                ", ".join((each["manifest"] or {}).get("dependencies", ())),
                _why(each),
            )
            for each in plugins
        ],
    )


def _why(plugin: dict[str, Any]) -> str:
    """Say why it is not as wanted, or that what serves is not what is on disk."""
    if plugin["reload_error"]:
        return f"what is on disk is not live: {plugin['reload_error']['message']}"
    if lagging := next((each for each in plugin["enforcement"] if each["problem"]), None):
        return f"{lagging['where']} lags behind what was decided: {lagging['problem']}; {lagging['way_out']}"
    return str(plugin["why"] or (plugin["reason"] or {}).get("message", ""))


def _wanted(desired: dict[str, Any]) -> str:
    state = {True: "on", False: "off"}.get(desired["on"], "?")
    return state if desired["by"] == "manifest" else f"{state} ({desired['by']})"


def _find_server(settings: Settings) -> LiveServer | None:
    """Return the server that runs with these settings; somebody else's does not count."""
    with suppress(ControlSocketError):
        return find_server(settings)
    return None


@app.command()
def graph(directory: Directory = None, as_json: JsonFlag = False) -> None:
    """Show which plugin requires which."""
    plan = _plan(directory)
    if as_json:
        print_json({"requires": plan.to_json()["requires"], "cycles": plan.to_json()["cycles"]})
    else:
        say(render_graph(plan))


@app.command()
def plan(directory: Directory = None, as_json: JsonFlag = False) -> None:
    """Show what would load, in which order, and what is held back and why; exit status 1 if there is a problem."""
    found = _plan(directory)
    if as_json:
        print_json(found.to_json())
    else:
        say(render_plan(found))
    if found.problems:
        raise typer.Exit(1)


def plugin_rows(plan: Plan) -> list[dict[str, Any]]:
    """Return one row per plugin, in load order, held ones after by id."""
    return [_row(plan, plugin_id) for plugin_id in (*plan.order, *sorted(plan.held))]


def _row(plan: Plan, plugin_id: str) -> dict[str, Any]:
    candidate, error = plan.candidates[plugin_id], plan.held.get(plugin_id)
    manifest = candidate.manifest
    return {
        "id": plugin_id,
        "name": manifest.name if manifest else None,
        "version": manifest.version if manifest else "",
        "startup": str(error.state) if error else "ready",
        "reason": str(error) if error else None,
        "dependencies": list(manifest.dependencies) if manifest else [],
        "path": str(candidate.source),
        "warnings": list(candidate.warnings),
    }


def _plan(directory: str | None) -> Plan:
    from pixsim7_backend.cli.desired import read_desired

    settings = load_settings()
    if directory:
        return planned(settings, [directory], safe_mode=settings.safe_mode)
    return planned(settings, desired=read_desired(settings), safe_mode=settings.safe_mode)


def plugin_directories(settings: Settings) -> list[str]:
    """Return where the configured plugins that are trusted are."""
    return [settings.plugins_dir, *settings.extra_plugins_dirs]


def community_options(settings: Settings, desired: DesiredState) -> dict[str, Any]:
    """Return what a preview has to know of the plugins that run confined."""
    return {
        "community_directory": settings.community_plugins_dir,
        "isolation": settings.isolation,
        "community_floor": settings.community_floor,
        "grants": partial(read_grants, desired),
    }


def startup_journal(settings: Settings) -> StartupJournal:
    """Return the notes of what starts died in; a start with these settings heeds them."""
    return StartupJournal(settings.starts_dir if settings.remember_crashes else None)


def planned(
    settings: Settings,
    directories: list[str] | None = None,
    revise: Callable[[Sequence[Candidate]], Iterable[Candidate]] = iter,
    *,
    desired: DesiredState = _NOTHING_DESIRED,
    grants: Mapping[str, Grants] = MappingProxyType({}),
    safe_mode: bool = False,
) -> Plan:
    """Return what a start-up would do with these directories, what the operator wants and what earlier ones died in.

    Without ``directories`` it is those that are configured, with that of strangers' plugins. ``revise`` may change
    what is found in them, ``grants`` says what would be decided instead of what is stored.

    Raises:
        CommandError: ``DATABASE_URL`` is malformed.
        PluginError: a directory does not exist, or the platform's configuration is unusable.
    """
    from pixsim7_backend.db import DatabaseUrlError
    from pixsim7_backend.resources import CHECKS, configured

    community = community_options(settings, desired) if directories is None else {}
    if grants and directories is None:
        community["grants"] = lambda plugin: grants[plugin] if plugin in grants else read_grants(desired, plugin)
    # The embedded database is always there; asking it would make its file.
    checks = {**CHECKS, "db": lambda: None} if settings.is_embedded else CHECKS
    try:
        with configured(settings):
            return preview(
                plugin_directories(settings) if directories is None else directories,
                switched=desired.switched,
                **community,
                resources=checks,
                safe_mode=safe_mode,
                startup_journal=startup_journal(settings),
                revise=revise,
            )
    except DatabaseUrlError as error:
        raise CommandError(str(error), exit_status=2) from None
