"""``pixsim7 plugins settings``: what a plugin is set to, and changes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer

from pixsim7_backend.cli.desired import opened_store, read_desired
from pixsim7_backend.cli.live import LiveServer, find_server
from pixsim7_backend.cli.output import CommandError, JsonFlag, print_json, print_table, say
from pixsim7_backend.cli.plugins import planned
from pixsim7_backend.cli.plugins_switch import DryRun, PluginId
from pixsim7_backend.infrastructure.plugins import mask_stored, normalize_plugin_id
from pixsim7_backend.infrastructure.plugins.preview import preview_switch
from pixsim7_backend.merge_patch import merge_patch
from pixsim7_backend.settings import Settings, load_settings

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Store a value: JSON, else a text; dots lead into objects."),
]
Unset = Annotated[
    list[str] | None,
    typer.Option("--unset", metavar="KEY", help="Remove a stored value, so that the configuration counts again."),
]


def settings(
    plugin_id: PluginId, *, values: Set = None, unset: Unset = None, dry_run: DryRun = False, as_json: JsonFlag = False
) -> None:
    """Show a plugin's settings, or change them while the server runs; they stay so over restarts.

    Without a running server the stored values are shown, and can be removed (--unset) but not set: only
    the plugin's code can tell whether a value is right, and which ones are secret.
    """
    patch = read_patch(values or (), unset or ())
    host = load_settings()
    server = find_server(host)
    if server is None:
        _offline(host, normalize_plugin_id(plugin_id), patch, dry_run=dry_run, as_json=as_json)
    elif not patch:
        _show(server.ask("settings", id=plugin_id), as_json=as_json)
    else:
        _change(server, plugin_id, patch, dry_run=dry_run, as_json=as_json)


def read_patch(values: Sequence[str], unset: Sequence[str]) -> dict[str, Any]:
    """Return the merge patch of ``KEY=VALUE`` and ``KEY`` arguments.

    Raises:
        CommandError: one of them is malformed.
    """
    patch: dict[str, Any] = {}
    for each in values:
        key, equals, text = each.partition("=")
        if not equals or not all(key.split(".")):
            raise CommandError(f"--set {each}: write it like --set level=3 or --set colours.sky=blue", exit_status=2)
        _put(patch, key.split("."), _value(text))
    for key in unset:
        if not all(key.split(".")) or "=" in key:
            raise CommandError(f"--unset {key}: write it like --unset level or --unset colours.sky", exit_status=2)
        _put(patch, key.split("."), None)
    return patch


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _put(target: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for name in path[:-1]:
        if not isinstance(target.get(name), dict):
            target[name] = {}
        target = target[name]
    target[path[-1]] = value


# --- with a server --------------------------------------------------------------------------------


def _change(server: LiveServer, plugin_id: str, patch: Mapping[str, Any], *, dry_run: bool, as_json: bool) -> None:
    answer = server.ask("change_settings", id=plugin_id, patch=patch, dry_run=dry_run)
    if as_json:
        print_json({"live": True, **answer})
        return
    if answer["starts"]:
        say(f"{normalize_plugin_id(plugin_id)} {'would start' if dry_run else 'has started'} with these settings")
    problems = [] if answer["starts"] or not answer["settings"] else answer["settings"]["problems"]
    if dry_run and problems:
        say(f"these settings would be stored; nothing was changed; {'; '.join(problems)}")
    elif dry_run:
        say("the plugin would accept these settings; nothing was changed")
    elif answer["settings"]:
        _show(answer["settings"], as_json=False)


def _show(view: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json({"live": True, **view})
        return
    rows = [(key, json.dumps(value, ensure_ascii=False), _source(view, key)) for key, value in _leaves(view["values"])]
    print_table(("setting", "value", "from"), rows)
    for problem in view["problems"]:
        say(problem)


def _source(view: Mapping[str, Any], key: str) -> str:
    """Return where a value comes from: what is known of the nearest object around it."""
    while key and key not in view["sources"]:
        key = key.rpartition(".")[0]
    return str(view["sources"].get(key, "default"))


def _leaves(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        key = f"{path}.{name}" if path else name
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, key)
        else:
            yield key, value


# --- without one ----------------------------------------------------------------------------------


def _offline(host: Settings, plugin_id: str, patch: Mapping[str, Any], *, dry_run: bool, as_json: bool) -> None:
    """Show or remove what is stored; PluginNotFoundError where nothing is, for a plugin that is not installed."""
    kept = read_desired(host).settings.get(plugin_id, {})
    if not kept:  # what is stored for a plugin that is gone can be removed
        plan = planned(host)
        preview_switch(plan, plan, plugin_id)
    if any(value is not None for _, value in _leaves(patch)):
        raise CommandError(
            f"no server runs here that could check settings of {plugin_id}; start one with `pixsim7 serve` and repeat,"
            f" or set PLUGIN_{plugin_id.upper().replace('-', '_')}__<KEY> in its environment"
        )
    stored = _remove(host, plugin_id, patch) if patch and not dry_run else merge_patch(kept, patch)
    if as_json:
        print_json({"live": False, "plugin": plugin_id, "stored": mask_stored(stored), "dry_run": dry_run})
        return
    say("no server runs here; what is stored for the next start:")
    rows = [(key, json.dumps(value, ensure_ascii=False)) for key, value in _leaves(mask_stored(stored))]
    print_table(("setting", "stored value"), rows)


def _remove(host: Settings, plugin_id: str, patch: Mapping[str, Any]) -> Mapping[str, Any]:
    with opened_store(host) as store:
        state = store.load()
        stored: dict[str, Any] = merge_patch(state.settings.get(plugin_id, {}), patch)
        others = {each: kept for each, kept in state.settings.items() if each != plugin_id}
        kept = {**others, plugin_id: stored} if stored else others
        store.save(replace(state, settings=kept), expected_version=state.version)
    return stored
