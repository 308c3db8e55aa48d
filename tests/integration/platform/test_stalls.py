"""Who blocks the event loop is named, with the line, while it blocks."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from pathlib import Path

import pytest

from pixsim7_backend.infrastructure.plugins import Stall, plugin_hooks
from pixsim7_backend.infrastructure.plugins._attribution.culprit import find_culprit
from pixsim7_backend.infrastructure.plugins._attribution.stalls import StallWatch
from pixsim7_backend.infrastructure.plugins.testing import PluginHost, plugin_host, write_plugin

pytestmark = pytest.mark.anyio

QUEST = """
import re
import time

@router.get("/sleep")
async def sleep() -> None:
    time.sleep(0.5)  # sleeps

@router.get("/regex")
async def regex() -> None:
    re.match(r"(a+)+$", "a" * 23 + "b")  # matches

@router.get("/spin")
async def spin() -> None:
    end = time.perf_counter() + 0.4
    while time.perf_counter() < end:
        sum(range(1000))  # spins

@router.get("/thread")
def thread() -> None:
    time.sleep(0.4)

def handler() -> None:
    time.sleep(0.4)  # handles

async def work() -> None:
    await asyncio.sleep(0)
    time.sleep(0.4)  # works

@router.get("/answer")  # answers
async def answer():
    return LARGE

@router.get("/later")
async def later() -> None:
    asyncio.get_running_loop().call_later(0, time.sleep, 0.4)

@router.get("/emits")
async def emits() -> None:
    await plugin_hooks.emit("host:asked")

async def dependency() -> None:
    pass

@router.get("/depends", dependencies=[Depends(dependency)])
async def depends() -> None:
    pass

LARGE = [{"number": number, "more": [number] * 5} for number in range(50_000)]

@router.get("/task")
async def task() -> None:
    asyncio.create_task(work())

async def on_enable() -> None:
    plugin_hooks.register("quest:asked", handler)
    plugin_hooks.register("quest:slept", time.sleep)
"""


def line_of(folder: Path, comment: str) -> tuple[str, int]:
    file = folder / "manifest.py"
    lines = file.read_text().splitlines()
    return str(file), 1 + next(number for number, line in enumerate(lines) if line.endswith(f"# {comment}"))


async def stall_of(host: PluginHost) -> Stall:
    async with asyncio.timeout(60):
        while not host.manager.metrics.stalls:  # noqa: ASYNC110 - the other thread announces it to the loop only
            await asyncio.sleep(0.01)
    return host.manager.metrics.stalls[-1]


@pytest.mark.parametrize(
    ("path", "comment"),
    [("sleep", "sleeps"), ("regex", "matches"), ("spin", "spins"), ("task", "works"), ("answer", "answers")],
)
async def test_the_blocking_line_of_a_plugin_is_named(path: str, comment: str, tmp_path: Path) -> None:
    """A sleeping call, one that keeps the interpreter's lock, a loop, a task, and what the platform does for it."""
    folder = write_plugin(tmp_path, "quest", QUEST)
    async with plugin_host(tmp_path, stall_threshold=0.15) as host:
        await asyncio.sleep(0.1)
        while not host.manager.metrics.stalls:  # one that keeps the lock may be over before anybody could look
            await host.client.get(f"/api/v1/quest/{path}", timeout=60)
            await asyncio.sleep(0.1)
        stall = await stall_of(host)
        assert (stall.plugin, (stall.file, stall.line)) == ("quest", line_of(folder, comment))
        assert stall.is_over
        assert stall.seconds > 0.15
        figures = host.manager.metrics.of("quest")
        assert (figures.stalls, figures.stalled_seconds) == (1, stall.seconds)


async def test_it_is_named_while_it_blocks_and_again_when_it_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The first line is in the log before the block ends; a long one is said again, ever more rarely."""
    folder = write_plugin(tmp_path, "quest", QUEST.replace("time.sleep(0.5)", "time.sleep(0.9)"))
    file, line = line_of(folder, "sleeps")
    async with plugin_host(tmp_path, stall_threshold=0.1) as host:
        await asyncio.sleep(0.1)
        with caplog.at_level(logging.WARNING, "pixsim7.plugins"):
            await host.client.get("/api/v1/quest/sleep")
            during = [each for each in caplog.records if each.levelno == logging.WARNING]
            assert 1 <= len(during) <= 2
            text = during[0].getMessage()
            assert text.startswith("plugin 'quest' has been blocking the event loop for 0.")
            assert f" s at {file}:{line} (sleep)" in text
            await stall_of(host)


@pytest.mark.parametrize(("event", "arguments"), [("quest:asked", ()), ("quest:slept", (0.4,))])
async def test_handlers_are_named_even_if_they_are_library_functions(
    event: str, arguments: tuple[float, ...], tmp_path: Path
) -> None:
    """Without a line of the plugin on the stack, the subscription tells whose turn it is."""
    write_plugin(tmp_path, "quest", QUEST)
    async with plugin_host(tmp_path, stall_threshold=0.15) as host:
        await asyncio.sleep(0.1)
        await plugin_hooks.emit(event, *arguments)
        assert (await stall_of(host)).plugin == "quest"


async def test_code_of_the_host_is_named_as_the_hosts(tmp_path: Path) -> None:
    """Plugins are not blamed for it."""
    write_plugin(tmp_path, "quest", QUEST)
    async with plugin_host(tmp_path, stall_threshold=0.15) as host:

        @host.app.get("/own")
        async def own() -> None:
            time.sleep(0.4)  # noqa: ASYNC251 - that is what is tested

        await asyncio.sleep(0.1)
        await host.client.get("/own")
        stall = await stall_of(host)
        assert (stall.plugin, stall.file, stall.function.rpartition(".")[2]) == (None, __file__, "own")
        assert str(stall).startswith("the host blocked the event loop for ")
        assert host.manager.metrics.of("quest").stalls == 0


async def test_a_library_function_that_a_plugin_gave_to_the_loop_is_the_plugins(tmp_path: Path) -> None:
    """Nothing of the plugin is on the stack; the context says whose callback it is."""
    write_plugin(tmp_path, "quest", QUEST)
    async with plugin_host(tmp_path, stall_threshold=0.15) as host:
        await asyncio.sleep(0.1)
        await host.client.get("/api/v1/quest/later")
        assert (await stall_of(host)).plugin == "quest"


async def test_what_the_host_does_for_a_plugin_is_the_hosts(tmp_path: Path) -> None:
    """Its handler of an event that a plugin announces, and its dependency at a plugin's route."""
    write_plugin(tmp_path, "quest", QUEST)

    async def block() -> None:
        time.sleep(0.4)  # noqa: ASYNC251 - that is what is tested

    async with plugin_host(tmp_path, stall_threshold=0.15) as host:
        await asyncio.sleep(0.1)
        subscription = plugin_hooks.register("host:asked", block)
        try:
            await host.client.get("/api/v1/quest/emits")
            await stall_of(host)
        finally:
            subscription.cancel()
        host.override("quest:dependency", block)
        await host.client.get("/api/v1/quest/depends")
        async with asyncio.timeout(60):
            while len(host.manager.metrics.stalls) < 2:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
        assert [(each.plugin, each.file) for each in host.manager.metrics.stalls] == [(None, __file__)] * 2


async def test_work_in_threads_and_waiting_block_nothing(tmp_path: Path) -> None:
    """A synchronous endpoint may take its time."""
    write_plugin(tmp_path, "quest", QUEST)
    async with plugin_host(tmp_path, stall_threshold=0.15) as host:
        await asyncio.gather(*(host.client.get("/api/v1/quest/thread") for _ in range(4)), asyncio.sleep(0.5))
        assert [each for each in host.manager.metrics.stalls if each.plugin == "quest"] == []


def test_a_loop_that_nobody_runs_is_not_blocked() -> None:
    """Between two runs of a loop nothing waits for it, whatever its thread does meanwhile."""

    async def begin() -> StallWatch:
        watch = StallWatch(
            0.04, find_culprit=lambda frame: find_culprit(frame, {}, {}, lambda: None), on_stall=seen.append
        )
        watch.start()
        return watch

    seen: list[Stall] = []
    loop = asyncio.new_event_loop()
    watch = loop.run_until_complete(begin())
    try:
        time.sleep(0.3)
        assert watch.current is None
        loop.run_until_complete(asyncio.sleep(0.1))
        assert not watch.recent
        loop.call_soon(time.sleep, 0.3)
        loop.run_until_complete(asyncio.sleep(0.1))
        assert [stall.function for stall in seen]
    finally:
        watch.stop()
        loop.close()


async def test_the_watch_ends_with_the_app_and_can_be_left_out(tmp_path: Path) -> None:
    """No thread is left behind."""
    write_plugin(tmp_path, "quest", QUEST)

    def watches() -> int:
        return sum(each.name == "pixsim7 stall watch" for each in threading.enumerate())

    async with plugin_host(tmp_path):
        assert watches() == 1
    assert watches() == 0
    async with plugin_host(tmp_path, stall_threshold=None) as host:
        assert watches() == 0
        await host.client.get("/api/v1/quest/sleep")
        assert not host.manager.metrics.stalls
