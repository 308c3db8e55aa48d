"""What is counted, and how it reads."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import replace

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from pixsim7_backend.infrastructure.plugins._attribution.figures import (
    BUCKETS,
    EVERY,
    EXACT,
    ConfinedFigures,
    Latency,
    PluginFigures,
    RequestCounts,
    Stall,
    find_place,
    on_the_clock,
)
from pixsim7_backend.infrastructure.plugins._attribution.prometheus import render_prometheus
from pixsim7_backend.infrastructure.plugins._dispatch import build_mount
from pixsim7_backend.infrastructure.plugins._ledger.ownership import AppKey, Owner

pytestmark = pytest.mark.anyio


def test_answers_are_counted_by_class_and_time() -> None:
    """A bound belongs to its own bucket; a status that HTTP does not know breaks nothing."""
    counts = RequestCounts()
    for status, seconds in [(200, 0.001), (204, 0.005), (404, 0.0051), (500, 3.0), (999, 99.0)]:
        counts.add_answer(status, seconds)
    assert counts.answers == [0, 0, 2, 0, 1, 1, 0, 0, 0, 1]
    assert counts.buckets == [2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1]
    assert (counts.requests, counts.errors) == (5, 2)


def test_faults_are_told_and_counted_by_endpoint() -> None:
    """503 is an error, but somebody else's."""
    counts, told = RequestCounts(), []
    counts.on_fault = lambda: told.append(sum(counts.faults.values()))
    for status, endpoint in [(503, "one"), (500, "one"), (502, "two"), (500, "one")]:
        counts.add_error(status, endpoint)
    counts.add_websocket()
    counts.add_websocket(failed_at="talk")
    assert told == [1, 2, 3, 4]
    assert counts.faults == {"one": 2, "two": 1, "talk": 1}
    assert (counts.websockets, counts.errors) == (2, 1)


def test_the_place_of_an_exception_is_the_plugins_own_line() -> None:
    """A library that raises is called from somewhere."""
    try:
        json.loads("{")
    except ValueError as error:
        here, anywhere = find_place(error.__traceback__, __file__), find_place(error.__traceback__, "/nowhere/")
    assert here is not None
    assert here[0] == __file__
    assert anywhere is not None
    assert "json" in anywhere[0]


async def test_only_time_on_the_loop_is_counted() -> None:
    """Waiting costs nothing; values, errors and cancellation pass through."""
    counts = RequestCounts()

    async def code(value: int) -> int:
        await asyncio.sleep(0.05)
        try:
            await asyncio.wait_for(asyncio.sleep(10), 0.01)
        except TimeoutError:
            return value
        return 0

    async def failing() -> None:
        await asyncio.sleep(0)
        raise KeyError("no")

    assert await on_the_clock(code(3), counts) == 3
    assert 0 < counts.loop_seconds < 0.04
    with pytest.raises(KeyError):
        await on_the_clock(failing(), counts)
    task = asyncio.ensure_future(_awaited(counts))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _awaited(counts: RequestCounts) -> None:
    await on_the_clock(asyncio.sleep(10), counts)


async def test_of_many_requests_some_stand_for_all() -> None:
    """The first are timed one by one, of the later ones every thirteenth; a WebSocket is always timed itself."""
    owner = Owner(AppKey(), "busy", 1, "", "")
    mount = build_mount(FastAPI(), owner=owner, routers=[], prefix="/api", tags=())

    async def work(_scope: Scope, _receive: Receive, _send: Send) -> None:
        end = time.perf_counter() + 0.0005
        while time.perf_counter() < end:
            pass

    async def ask(kind: str, times: int) -> float:
        before = mount.counts.loop_seconds
        for _ in range(times):
            await mount.serve(work, {"type": kind}, _nothing, _nowhere)
        return mount.counts.loop_seconds - before

    assert await ask("http", EXACT) >= EXACT * 0.0005
    assert mount.counts.exact == 0
    assert await ask("http", EVERY * 10) >= EVERY * 10 * 0.0005
    assert mount.counts.untimed == EVERY - 1 - (EVERY * 10 - 1) % EVERY
    assert await ask("websocket", 3) >= 3 * 0.0005


async def _nothing() -> Message:
    raise AssertionError("nobody asks for a body")


async def _nowhere(message: Message) -> None:
    raise AssertionError(message)


@given(st.lists(st.floats(0, 20), min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_the_bound_of_its_bucket(seconds: list[float], share: float) -> None:
    """At least that share of the requests was faster."""
    counts = RequestCounts()
    for each in seconds:
        counts.add_answer(200, each)
    latency = Latency(counts=tuple(counts.buckets), sum=counts.latency_sum)
    bound = latency.quantile(share)
    below = sum(each <= (BUCKETS[-1] if bound is None else bound) for each in seconds)
    assert below >= share * len(seconds) if bound is not None else below < share * len(seconds)


def test_without_requests_there_are_no_quantiles() -> None:
    """Nothing is None, not zero."""
    assert Latency().quantile(0.5) is None
    assert Latency().mean == 0


def test_prometheus_text_has_help_types_and_escaped_labels() -> None:
    """Backslash, quote and line break cannot end a label; buckets are cumulative and end in +Inf."""
    latency = Latency(bounds=(0.1, 1.0), counts=(1, 2, 3), sum=4.5)
    figures = [
        PluginFigures(plugin='a"b\\c\nd', answers={"2xx": 5, "5xx": 1}, errors=1, latency=latency),
        PluginFigures(plugin="other", memory_bytes=7),
    ]
    text = render_prometheus(figures)
    lines = text.splitlines()
    assert text.endswith("\n")
    name = r"a\"b\\c\nd"
    for line in [
        "# TYPE pixsim7_plugin_requests_total counter",
        f'pixsim7_plugin_requests_total{{plugin="{name}",status="2xx"}} 5',
        "# TYPE pixsim7_plugin_request_seconds histogram",
        f'pixsim7_plugin_request_seconds_bucket{{plugin="{name}",le="0.1"}} 1',
        f'pixsim7_plugin_request_seconds_bucket{{plugin="{name}",le="1"}} 3',
        f'pixsim7_plugin_request_seconds_bucket{{plugin="{name}",le="+Inf"}} 6',
        f'pixsim7_plugin_request_seconds_sum{{plugin="{name}"}} 4.5',
        f'pixsim7_plugin_request_seconds_count{{plugin="{name}"}} 6',
        'pixsim7_plugin_memory_bytes{plugin="other"} 7',
    ]:
        assert line in lines
    for kind in ("# HELP ", "# TYPE "):
        heads = [line.split()[2] for line in lines if line.startswith(kind)]
        assert len(heads) == len(set(heads))
    assert render_prometheus([]) == ""


def test_what_confined_plugins_use_is_told_where_it_is_known() -> None:
    """Calls by family in the units of Prometheus; a process that is not there has no sample, and is not up."""
    confined = ConfinedFigures(
        phase="up", starts=3, crashes=1, cpu_seconds=1.5, memory_bytes=4096, threads=2, scratch_bytes=512,
        calls={"db.calls": 7, "db.milliseconds": 250, "db.statements": 5, "http.calls": 2},
        calls_this_minute={"db.calls": 5}, calls_per_minute={"db.calls": 10, "http.calls": 4},
        calls_refused={"db.calls": 6},
    )  # fmt: skip
    off = replace(confined, phase="off", cpu_seconds=None, memory_bytes=None, threads=None, scratch_bytes=None)
    figures = [PluginFigures(plugin="a", confined=confined), PluginFigures(plugin="b", confined=off)]
    samples = [line for line in render_prometheus(figures).splitlines() if re.search("process|scratch|_call", line)]
    assert [line.removeprefix("pixsim7_plugin_") for line in samples if line[0] != "#" and 'plugin="a"' in line] == [
        'process_up{plugin="a"} 1',
        'process_starts_total{plugin="a"} 3',
        'process_crashes_total{plugin="a"} 1',
        'process_cpu_seconds_total{plugin="a"} 1.5',
        'process_resident_memory_bytes{plugin="a"} 4096',
        'process_threads{plugin="a"} 2',
        'scratch_bytes{plugin="a"} 512',
        'calls_total{plugin="a",family="db"} 7',
        'calls_total{plugin="a",family="http"} 2',
        'call_seconds_total{plugin="a",family="db"} 0.25',
        'call_statements_total{plugin="a",family="db"} 5',
        'calls_refused_total{plugin="a",limit="db.calls"} 6',
        'calls_minute_ratio{plugin="a",limit="db.calls"} 0.5',
        'calls_minute_ratio{plugin="a",limit="http.calls"} 0',
    ]
    assert 'pixsim7_plugin_process_up{plugin="b"} 0' in samples
    assert not any("cpu" in line or "threads" in line for line in samples if 'plugin="b"' in line)
    assert json.loads(json.dumps(figures[0].to_json()))["confined"]["calls"]["db.statements"] == 5


def test_figures_and_stalls_are_jsonable() -> None:
    """The admin API and ``--json`` show them."""
    figures = json.loads(json.dumps(PluginFigures(plugin="a", answers={"2xx": 1}).to_json()))
    assert figures["answers"] == {"2xx": 1}
    assert figures["latency"]["p95"] is None
    stall = Stall("a", "/a/x.py", 3, "wait", 0.5, "sleep at t.py:1")
    assert json.loads(json.dumps(stall.to_json()))["line"] == 3
    assert str(stall) == (
        "plugin 'a' has been blocking the event loop for 0.50 s at /a/x.py:3 (wait, in sleep at t.py:1)"
    )
