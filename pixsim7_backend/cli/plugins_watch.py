"""``pixsim7 plugins leaks|events|top``: what the plugins of a running server do."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pixsim7_backend.cli.live import get_server
from pixsim7_backend.cli.output import JsonFlag, print_json, print_table, say
from pixsim7_backend.infrastructure.plugins import normalize_plugin_id
from pixsim7_backend.settings import load_settings

Of = Annotated[str | None, typer.Option("--plugin", metavar="ID", help="Only what concerns this plugin.")]


def leaks(as_json: JsonFlag = False) -> None:
    """Show what plugins left behind when they stopped or were replaced; exit status 1 if there is anything."""
    found = get_server(load_settings()).ask("leaks")
    rows = [
        (report["plugin"], leak["kind"], leak["name"], leak["why"])
        for report in found["leaks"]
        for leak in report["leaks"]
    ]
    if as_json:
        print_json(found)
    elif rows:
        print_table(("plugin", "kind", "what", "why"), rows)
    else:
        say(f"nothing: {found['stopped']} plugins have stopped or were replaced, and left nothing behind")
    if rows:
        raise typer.Exit(1)


def events(
    plugin: Of = None,
    since: Annotated[int, typer.Option(min=0, help="Only happenings with a higher number.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """Show who hears which event, and what happened to plugins lately, oldest first."""
    found = get_server(load_settings()).ask("events", since=since)
    if plugin:
        wanted = normalize_plugin_id(plugin)
        found = {
            "subscriptions": [each for each in found["subscriptions"] if each["plugin"] == wanted],
            "declared": {each: names for each, names in found["declared"].items() if each == wanted},
            "happenings": [each for each in found["happenings"] if each["plugin"] == wanted],
        }
    if as_json:
        print_json(found)
        return
    rows = [(each["event"], each["plugin"] or "(host)", each["handler"]) for each in found["subscriptions"]]
    print_table(("event", "heard by", "handler"), rows)
    print_table(("number", "at", "what", "plugin", "more"), [_happening(each) for each in found["happenings"]])


def _happening(each: dict[str, Any]) -> tuple[str, ...]:
    at = str(each["at"])[:19].replace("T", " ")
    return str(each["number"]), at, each["kind"], each["plugin"] or "", each["text"]
