"""``pixsim7 plugins top``: who is busy on the running server, refreshed until it is interrupted."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console, Group
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
_CONFINED = (
    *("confined", "process", "starts", "crashes", "cpu %", "cpu", "memory", "threads", "scratch"),
    *("calls", "calls/s", "statements", "rows", "of the minute", "refused"),
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
        console.print(_render_all(server.ask("metrics")))
        return
    try:
        _follow(server, console, interval)
    except KeyboardInterrupt:
        return


def _follow(server: LiveServer, console: Console, interval: float) -> None:
    before, at = server.ask("metrics"), time.monotonic()
    with Live(_render_all(before), console=console, auto_refresh=False, screen=True) as live:
        while True:
            time.sleep(interval)
            now, now_at = server.ask("metrics"), time.monotonic()
            live.update(_render_all(now, before, seconds=now_at - at), refresh=True)
            before, at = now, now_at


def render(figures: Sequence[Figures], before: Iterable[Figures] = (), *, seconds: float = 0.0) -> Table:
    """Return the table of what plugins did, with their rates since ``before``, which was ``seconds`` ago."""
    earlier = {each["plugin"]: each for each in before}
    rows = [(each, _rates(each, earlier.get(each["plugin"]), seconds)) for each in figures]
    rows.sort(key=lambda row: (-row[1][1], -row[1][0], -row[0]["loop_seconds"], row[0]["plugin"]))
    table = _table(_COLUMNS)
    for each, (requests, busy) in rows:
        table.add_row(*_cells(each, requests, busy, has_rates=bool(seconds)))
    return table


def render_confined(figures: Iterable[Figures], before: Iterable[Figures] = (), *, seconds: float = 0.0) -> Table:
    """Return the table of what confined plugins use by their processes and calls; rates as :func:`render`."""
    earlier = {each["plugin"]: each["confined"] for each in before}
    table = _table(_CONFINED)
    for each in figures:
        if each["confined"]:
            former = earlier.get(each["plugin"]) or each["confined"]
            table.add_row(*_confined_cells(each["plugin"], each["confined"], former, seconds))
    return table


def _render_all(figures: Sequence[Figures], before: Sequence[Figures] = (), *, seconds: float = 0.0) -> Group:
    confined = render_confined(figures, before, seconds=seconds)
    return Group(render(figures, before, seconds=seconds), *([confined] if confined.row_count else []))


def _table(columns: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left")
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


def _confined_cells(plugin: str, now: Figures, before: Figures, seconds: float) -> list[Text]:
    calls, refused = _sum(now, "calls"), sum(now["calls_refused"].values())
    share, of = max(
        ((now["calls_this_minute"].get(name, 0) / most, name) for name, most in now["calls_per_minute"].items()),
        default=(0.0, ""),
    )
    busy = max(0.0, (now["cpu_seconds"] or 0) - (before["cpu_seconds"] or 0)) / seconds if seconds else None
    return [
        Text(plugin),
        Text(now["phase"], "" if now["phase"] in ("up", "idle") else "yellow"),
        Text(str(now["starts"])),
        Text(str(now["crashes"]), "red" if now["crashes"] else ""),
        Text(f"{busy:.1%}" if busy is not None else ""),
        Text(f"{now['cpu_seconds']:.1f} s" if now["cpu_seconds"] is not None else ""),
        Text(_mebibytes(now["memory_bytes"])),
        Text(str(now["threads"] or "")),
        Text(_mebibytes(now["scratch_bytes"])),
        Text(str(calls)),
        Text(f"{max(0, calls - _sum(before, 'calls')) / seconds:.1f}" if seconds else ""),
        Text(str(_sum(now, "statements"))),
        Text(str(_sum(now, "rows"))),
        Text(f"{share:.0%} {of}" if share else "", "red" if share >= 1 else ""),
        Text(str(refused), "yellow" if refused else ""),
    ]


def _sum(confined: Figures, what: str) -> int:
    """Return what was counted of calls of all kinds."""
    return sum(amount for name, amount in confined["calls"].items() if name.endswith(f".{what}"))


def _mebibytes(size: int | None) -> str:
    return "" if size is None else f"{size / (1 << 20):.1f} MiB"


def _milliseconds(bound: float | None, latency: Figures) -> str:
    """Return a bound as ``≤ 25 ms``; beyond the last bucket only that is known."""
    if bound is None:
        return f"> {latency['bounds'][-1] * 1000:g} ms" if sum(latency["counts"]) else ""
    return f"≤ {bound * 1000:g} ms"
