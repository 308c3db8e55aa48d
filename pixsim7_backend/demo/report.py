"""Shows the steps of a play: for people as they happen, or as one JSON document at the end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .client import Event
from .play import Step

__all__ = ["count_events", "show", "to_json"]

PAYLOAD_WIDTH = 100


def show(steps: Iterable[Step], console: Console) -> list[Step]:
    """Print each step as it comes; return them all."""
    shown = []
    for step in steps:
        _show(step, console)
        shown.append(step)
    return shown


def _show(step: Step, console: Console) -> None:
    console.print()
    console.print(Text(step.title, style="bold cyan"))
    if step.told:
        console.print(Text(step.told))
    if step.rows:
        table = Table(*step.columns, box=box.SIMPLE_HEAD, pad_edge=False)
        for row in step.rows:
            table.add_row(*map(Text, row))
        console.print(table)
    for name, events in groupby(step.events, key=lambda event: event.name):
        _show_events(name, list(events), console)


def _show_events(name: str, events: list[Event], console: Console) -> None:
    """Print an event with its payload; a run of equal events on one line."""
    payloads = ", ".join(_short(event) for event in events) if len(events) > 1 else _short(events[0])
    console.print(Text.assemble("  ", ("event ", "dim"), (name, "green"), " ", (payloads, "dim")), soft_wrap=True)


def _short(event: Event) -> str:
    text = " ".join(json.dumps(each, ensure_ascii=False) for each in event.payload)
    return text if len(text) <= PAYLOAD_WIDTH else f"{text[: PAYLOAD_WIDTH - 1]}…"


def count_events(steps: Iterable[Step]) -> dict[str, int]:
    """How often each event fired, in order of first appearance."""
    return dict(Counter(event.name for step in steps for event in step.events))


def to_json(steps: Iterable[Step]) -> dict[str, Any]:
    """The whole play as one JSON-able value, payloads in full."""
    told = list(steps)
    return {
        "steps": [
            {
                "title": step.title,
                "told": step.told,
                "table": [dict(zip(step.columns, row, strict=True)) for row in step.rows],
                "events": [{"event": event.name, "payload": list(event.payload)} for event in step.events],
            }
            for step in told
        ],
        "events": count_events(told),
    }
