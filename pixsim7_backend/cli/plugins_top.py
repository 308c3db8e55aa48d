"""``pixsim7 plugins top``: who is busy on the running server, refreshed until it is interrupted."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pixsim7_backend.cli.live import LiveServer, get_server
from pixsim7_backend.cli.output import JsonFlag, print_json
from pixsim7_backend.settings import load_settings

_COLUMNS = (
    *("plugin", "requests", "req/s", "errors", "refused", "p50", "p95", "in flight"),
    *("loop %", "stalls", "tasks", "handlers", "memory"),
)
Figures = Mapping[str, Any]


def top(
    interval: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show what each plugin does, the busiest first; rates are since the look before, or none in the first."""
    server = get_server(load_settings())
    if as_json:
        print_json(server.ask("metrics"))
        return
    console = Console(highlight=False)
    if once or not console.is_terminal:
        if not console.is_terminal:
            console.width = 160
        console.print(render(server.ask("metrics")))
        return
    try:
        _follow(server, console, interval)
    except KeyboardInterrupt:
        return


def _follow(server: LiveServer, console: Console, interval: float) -> None:
    before, at = server.ask("metrics"), time.monotonic()
    with Live(render(before), console=console, auto_refresh=False, screen=True) as live:
        while True:
            time.sleep(interval)
            now, now_at = server.ask("metrics"), time.monotonic()
            live.update(render(now, before, seconds=now_at - at), refresh=True)
            before, at = now, now_at


def render(figures: Sequence[Figures], before: Iterable[Figures] = (), *, seconds: float = 0.0) -> Table:
    """Return the table of what plugins did, with their rates since ``before``, which was ``seconds`` ago."""
    earlier = {each["plugin"]: each for each in before}
    rows = [(each, _rates(each, earlier.get(each["plugin"]), seconds)) for each in figures]
    rows.sort(key=lambda row: (-row[1][1], -row[1][0], -row[0]["loop_seconds"], row[0]["plugin"]))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name == "plugin" else "right")
    for each, (requests, busy) in rows:
        table.add_row(*_cells(each, requests, busy, has_rates=bool(seconds)))
    return table


def _rates(now: Figures, before: Figures | None, seconds: float) -> tuple[float, float]:
    """Return requests per second and the share of the loop's time; zero where there is nothing to compare."""
    if before is None or seconds <= 0:
        return 0.0, 0.0
    requests = max(0, now["requests"] - before["requests"]) / seconds
    return requests, max(0.0, now["loop_seconds"] - before["loop_seconds"]) / seconds


def _cells(each: Figures, requests: float, busy: float, *, has_rates: bool) -> list[Text]:
    latency, refused = each["latency"], sum(each["refused"].values())
    stalls = f"{each['stalls']} ({each['stalled_seconds']:.1f} s)" if each["stalls"] else "0"
    memory = "" if each["memory_bytes"] is None else f"{each['memory_bytes'] / 1024:.0f} KiB"
    return [
        Text(each["plugin"]),
        Text(str(each["requests"])),
        Text(f"{requests:.1f}" if has_rates else ""),
        Text(str(each["errors"]), "red" if each["errors"] else ""),
        Text(str(refused), "yellow" if refused else ""),
        Text(_milliseconds(latency["p50"], latency)),
        Text(_milliseconds(latency["p95"], latency)),
        Text(str(each["in_flight"])),
        Text(f"{busy:.1%}" if has_rates else ""),
        Text(stalls, "yellow" if each["stalls"] else ""),
        Text(str(each["tasks"])),
        Text(str(each["subscriptions"])),
        Text(memory),
    ]


def _milliseconds(bound: float | None, latency: Figures) -> str:
    """Return a bound as ``≤ 25 ms``; beyond the last bucket only that is known."""
    if bound is None:
        return f"> {latency['bounds'][-1] * 1000:g} ms" if sum(latency["counts"]) else ""
    return f"≤ {bound * 1000:g} ms"
