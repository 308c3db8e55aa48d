"""``pixsim7 plugins enable|disable|reload|retry``: change a running server, or what the next start will do."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from pixsim7_backend.cli.desired import opened_store, plan_switch
from pixsim7_backend.cli.live import LiveServer, find_server, get_server
from pixsim7_backend.cli.output import CommandError, JsonFlag, print_json, say
from pixsim7_backend.cli.plugins_grants import enforcement_lines, follow_offline, look_offline
from pixsim7_backend.infrastructure.plugins import StartupJournal, normalize_plugin_id
from pixsim7_backend.infrastructure.plugins._desired import read_grants
from pixsim7_backend.settings import Settings, load_settings

PluginId = Annotated[str, typer.Argument(metavar="ID", help="Id of the plugin.")]
Cascade = Annotated[bool, typer.Option("--cascade", help="First disable the plugins that need it.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would happen.")]
Grant = Annotated[
    list[str] | None,
    typer.Option(
        "--grant",
        metavar="PERMISSION",
        help="Grant this to a confined plugin (repeatable; also db, all or none), and decline what else it asks for.",
    ),
]
DiscardState = Annotated[
    bool, typer.Option("--discard-state", help="Do not ask the old code for its state, and lose it.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before other plugins stop or are replaced.")]


def enable(plugin_id: PluginId, *, grant: Grant = None, dry_run: DryRun = False, as_json: JsonFlag = False) -> None:
    """Enable a plugin, and with it what is held back only because of it; it stays enabled over restarts.

    Without a running server it is noted for the next start.
    """
    settings = load_settings()
    server = find_server(settings)
    if server is not None:
        _change(server, "enable", plugin_id, dry_run=dry_run, yes=True, as_json=as_json, grant=grant or None)
        return
    how = {"cascade": True, "dry_run": dry_run, "yes": True, "as_json": as_json}
    _switch_offline(settings, plugin_id, on=True, grant=grant or None, **how)


def disable(
    plugin_id: PluginId,
    *,
    cascade: Cascade = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Disable a plugin; refused with the list when others need it. It stays disabled over restarts.

    Without a running server it is noted for the next start.
    """
    settings = load_settings()
    server = find_server(settings)
    if server is not None:
        _change(server, "disable", plugin_id, dry_run=dry_run, yes=yes, as_json=as_json, cascade=cascade)
    else:
        _switch_offline(settings, plugin_id, on=False, cascade=cascade, dry_run=dry_run, yes=yes, as_json=as_json)


def reload(
    plugin_id: PluginId,
    *,
    discard_state: DiscardState = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: JsonFlag = False,
) -> None:
    """Replace a plugin's code by what is on disk now, while the server runs; when it fails the old code serves on."""
    server = get_server(load_settings())
    how = {"dry_run": dry_run, "yes": yes, "as_json": as_json, "discard_state": discard_state}
    _change(server, "reload", plugin_id, **how)


def retry(plugin_id: PluginId, *, dry_run: DryRun = False, as_json: JsonFlag = False) -> None:
    """Give a plugin that failed, is blocked or was quarantined another chance, while the server runs.

    Without a running server: one that a start died in is started again with the next.
    """
    settings = load_settings()
    if find_server(settings) is None and _forget_crash(settings, plugin_id, dry_run=dry_run):
        if as_json:
            print_json({"live": False, "plugin": normalize_plugin_id(plugin_id), "dry_run": dry_run})
        else:
            say(f"the next start {'would try' if dry_run else 'tries'} {normalize_plugin_id(plugin_id)} again")
        return
    _change(get_server(settings), "retry", plugin_id, dry_run=dry_run, yes=True, as_json=as_json)


# --- with a server --------------------------------------------------------------------------------


def _change(
    server: LiveServer, command: str, plugin_id: str, *, dry_run: bool, yes: bool, as_json: bool, **how: Any
) -> None:
    """Show what would happen, ask where others are touched, and do just that."""
    preview = server.ask(command, id=plugin_id, dry_run=True, **how)
    if dry_run:
        _show(preview, as_json=as_json, is_done=False)
        return
    if preview["refused"]:
        raise CommandError(preview["refused"]["message"])
    plugin = preview["plugin"]
    _confirm(command, plugin["id"], preview["change"], yes=yes)
    done = server.ask(command, id=plugin["id"], version=plugin["record_version"], **how)
    _show(done, as_json=as_json, is_done=True)


def _show(answer: Mapping[str, Any], *, as_json: bool, is_done: bool) -> None:
    if as_json:
        print_json({"live": True, **answer})
        return
    for line in (
        *grant_lines(answer.get("grants")),
        *enforcement_lines(answer.get("enforcement", ())),
        *change_lines(answer["change"], answer["plugin"]["id"], is_done=is_done),
    ):
        say(line)
    if answer["refused"]:
        say(f"it would be refused: {answer['refused']['message']}")
    if is_done:
        plugin = answer["plugin"]
        say(f"{plugin['id']} is {plugin['state']}")
        for leak in (answer["report"] or {}).get("leaks", ()):
            say(f"it left behind: {leak['kind']} {leak['name']}: {leak['why']}")


def _confirm(command: str, plugin_id: str, change: Mapping[str, Any], *, yes: bool) -> None:
    """Ask before others than the plugin itself stop or are replaced.

    Raises:
        CommandError: there is nobody to ask.
    """
    others = [step["id"] for step in (*change["stop"], *change["replace"]) if step["id"] != plugin_id]
    if yes or not others:
        return
    if not sys.stdin.isatty():
        names = ", ".join(others)
        raise CommandError(f"this also concerns {names}; add --yes, or look first with --dry-run", exit_status=2)
    for line in change_lines(change, plugin_id, is_done=False):
        say(line)
    typer.confirm(f"{command} {plugin_id}?", abort=True)


# --- without one ----------------------------------------------------------------------------------


def _forget_crash(settings: Settings, plugin_id: str, *, dry_run: bool) -> bool:
    """Let the next start have a plugin that an earlier one died in; tell whether there is such a note."""
    journal, plugin_id = StartupJournal(settings.starts_dir), normalize_plugin_id(plugin_id)
    return plugin_id in journal.suspects({}) if dry_run else journal.forget(plugin_id)


def _switch_offline(
    settings: Settings,
    plugin_id: str,
    *,
    on: bool,
    cascade: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
    grant: list[str] | None = None,
) -> None:
    with opened_store(settings) as store:
        plugin_id = normalize_plugin_id(plugin_id)
        switch = plan_switch(settings, store.load(), plugin_id, on=on, cascade=cascade, grant=grant)
        answer = switch.to_json()
        if not dry_run:
            _confirm("enable" if on else "disable", switch.plugin, answer["change"], yes=yes)
            switch.save(store)
    grants = read_grants(switch.after, plugin_id)
    is_decided = grant is not None and not dry_run
    told = follow_offline(settings, plugin_id, grants) if is_decided else look_offline(settings, grants) if on else []
    if as_json:
        print_json({**answer, "enforcement": told, "dry_run": dry_run})
        return
    for line in (*grant_lines(answer["grants"]), *enforcement_lines(told)):
        say(line)
    say("no server runs here; what the next start will do differently:")
    for line in change_lines(answer["change"], answer["plugin"]["id"], is_done=False):
        say(line)
    if not dry_run:
        say(f"noted that {switch.plugin} shall be {'enabled' if on else 'disabled'}")


def grant_lines(grants: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield a line for what a confined plugin may do, and one for what it may not."""
    for name in ("granted", "declined", "undecided"):
        if grants and grants[name]:
            yield f"{name + ':':10} {', '.join(grants[name])}"


def change_lines(change: Mapping[str, Any], plugin_id: str, *, is_done: bool) -> Iterator[str]:
    """Yield a line for each step of a change of this plugin, in order."""
    words = {"stop": "stopped", "replace": "replaced", "start": "started"} if is_done else {}
    steps = [(words.get(what, what), step) for what in ("stop", "replace", "start") for step in change[what]]
    if not steps:
        yield "nothing changed" if is_done else "nothing"
    width = max((len(step["id"]) for _, step in steps), default=0)
    for what, step in steps:
        yield f"{what:8} {step['id']:{width}}  {'asked for' if step['id'] == plugin_id else step['why']}"
