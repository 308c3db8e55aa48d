"""Plugins that do too much harm are taken out of service, and tried again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from pixsim7_backend.infrastructure.plugins import BreakerSettings, PluginState, plugin_hooks
from pixsim7_backend.infrastructure.plugins._attribution.breaker import BreakerState
from pixsim7_backend.infrastructure.plugins.errors import DependencyHeldError, QuarantinedError
from pixsim7_backend.infrastructure.plugins.testing import PluginHost, plugin_host, write_plugin

pytestmark = pytest.mark.anyio

#: The pause is long: trials begin when a test says so. One endpoint is enough, where a test does not say more.
BREAKER = BreakerSettings(window=30, min_requests=8, endpoints=1, pause=600, max_pause=3600, trial=0.2)
QUEST = """
import time

@router.get("/ok")
async def ok() -> int:
    return 1

@router.post("/items/{item}")
async def item(item: int) -> int:
    return item

@router.get("/broken")
async def broken() -> None:
    raise KeyError("secret")

@router.get("/broken-too")
async def broken_too() -> None:
    raise KeyError("secret")

@router.get("/away")
async def away() -> None:
    raise HTTPException(503)

@router.get("/block")
async def block() -> None:
    time.sleep(0.9)

async def hang() -> None:
    await asyncio.sleep(60)

async def on_enable() -> None:
    plugin_hooks.register("quest:asked", hang)
"""


async def ask(host: PluginHost, path: str, times: int = 1, plugin: str = "quest") -> httpx.Response:
    """Send requests, whatever comes of them; return the last answer."""
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(host.app, raise_app_exceptions=False), base_url="http://plugins.test"
    )
    async with client:
        answers = await asyncio.gather(*(client.get(f"/api/v1/{plugin}/{path}") for _ in range(times)))
    return answers[-1]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what a timer or another thread brings about."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.01)


@asynccontextmanager
async def quarantining(directory: Path, breaker: BreakerSettings = BREAKER) -> AsyncIterator[PluginHost]:
    """Run the plugins with a breaker to which a slow machine says nothing."""
    async with plugin_host(directory, breaker=breaker, stall_threshold=None) as host:
        yield host


def let_pause_end(host: PluginHost, plugin: str = "quest") -> None:
    """Make the next trial due now."""
    quarantine = host.manager._supervision.quarantine
    assert quarantine is not None
    quarantine.breakers[plugin]._since -= 10_000
    quarantine.look(plugin)


async def test_a_failing_plugin_is_quarantined_with_its_evidence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Too few requests say nothing; then the record says what happened, and where."""
    folder = write_plugin(tmp_path, "quest", QUEST)
    async with quarantining(tmp_path) as host:
        await ask(host, "broken", 7)
        await host.manager.settle()
        host.assert_state("quest", PluginState.ENABLED)
        await ask(host, "broken")
        await host.manager.settle()
        reason = host.assert_state("quest", PluginState.FAILED).reason
        assert isinstance(reason, QuarantinedError)
        line = 1 + (folder / "manifest.py").read_text().splitlines().index('    raise KeyError("secret")')
        assert str(reason) == (
            "plugin 'quest' is quarantined: within 30 s 8 of 8 requests failed; last: KeyError at"
            f" {folder}/manifest.py:{line}; it is tried again after 600 s, or at once by `pixsim7 plugins retry quest`"
        )
        assert str(reason) in [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert not host.manager.list_subscriptions()


async def test_a_client_that_hammers_at_one_broken_endpoint_takes_nothing_from_the_others(tmp_path: Path) -> None:
    """However often; nor does it help to be there while nobody else is. Where all that is asked fails, it is over."""
    write_plugin(tmp_path, "quest", QUEST)
    async with quarantining(tmp_path, replace(BREAKER, endpoints=2)) as host:
        await ask(host, "broken", 400)
        await host.manager.settle()
        assert (await ask(host, "ok")).status_code == 200
        await ask(host, "broken-too", 3)
        await host.manager.settle()
        assert (await ask(host, "ok")).status_code == 200
        await ask(host, "broken-too", 12)
        await host.manager.settle()
        reason = host.assert_state("quest", PluginState.FAILED).reason
        assert "415 of 417 requests failed, at 2 endpoints" in str(reason)


async def test_several_are_taken_out_at_once_and_during_a_reload(tmp_path: Path) -> None:
    """Each for itself, one after the other; what waits for one of them is tried when that one is back."""
    for plugin in ("quest", "other", "story"):
        write_plugin(tmp_path, plugin, QUEST, dependencies=["quest"] if plugin == "story" else [])
    async with quarantining(tmp_path) as host:
        reload = asyncio.create_task(host.manager.reload("quest"))
        await asyncio.gather(*(ask(host, "broken", 20, plugin=each) for each in ("quest", "other")))
        await reload
        await ask(host, "broken", 20)
        await host.manager.settle()
        host.assert_state("quest", PluginState.FAILED)
        host.assert_state("other", PluginState.FAILED)
        host.assert_state("story", PluginState.BLOCKED)
        for each in ("quest", "other"):
            await host.manager.retry(each)
        assert {each.state for each in host.manager.iter_records()} == {PluginState.ENABLED}
        await ask(host, "broken", 20)


async def test_a_plugin_whose_only_endpoint_fails_is_quarantined(tmp_path: Path) -> None:
    """It has no other one that could bear it out."""
    write_plugin(tmp_path, "quest", '@router.get("/broken")\nasync def broken() -> None:\n    raise KeyError')
    async with quarantining(tmp_path, replace(BREAKER, endpoints=4)) as host:
        await ask(host, "broken", 8)
        await host.manager.settle()
        host.assert_state("quest", PluginState.FAILED)


async def test_handlers_that_raise_harm_nobody_and_are_only_counted(tmp_path: Path) -> None:
    """Who emits goes on at once, so a client that makes a plugin announce things takes no other one out."""
    write_plugin(tmp_path, "quest", QUEST.replace("await asyncio.sleep(60)", "raise KeyError"))
    async with quarantining(tmp_path) as host:
        for _ in range(300):
            await plugin_hooks.emit("quest:asked")
        await host.manager.settle()
        host.assert_state("quest", PluginState.ENABLED)
        assert host.manager.metrics.of("quest").handler_failures == 300


async def test_its_routes_say_that_it_is_away_and_when_to_come_again(tmp_path: Path) -> None:
    """503 with Retry-After on every path it had; 404 and 405 stay what they were; nothing is in the schema."""
    write_plugin(tmp_path, "quest", QUEST)
    write_plugin(tmp_path, "other", QUEST)
    async with quarantining(tmp_path) as host:
        await ask(host, "broken", 8)
        await host.manager.settle()
        for method, path in [("GET", "ok"), ("POST", "items/3")]:
            answer = await host.client.request(method, f"/api/v1/quest/{path}")
            assert answer.status_code == 503
            assert 598 <= int(answer.headers["retry-after"]) <= 600
            assert answer.json() == {"detail": "plugin 'quest' is out of service after failing too often"}
        assert (await host.client.get("/api/v1/quest/nowhere")).status_code == 404
        assert (await host.client.get("/api/v1/quest/items/3")).status_code == 405
        assert (await host.client.get("/api/v1/other/ok")).status_code == 200
        assert not [path for path in (await host.client.get("/openapi.json")).json()["paths"] if "quest" in path]
        requests = host.manager.metrics.of("quest").requests
        assert requests == 8, "what stands in for it does not count for it"


async def test_dependants_follow_and_come_back_with_it(tmp_path: Path) -> None:
    """They did nothing wrong: blocked, with 503 meanwhile."""
    write_plugin(tmp_path, "quest", QUEST)
    write_plugin(tmp_path, "story", QUEST.replace("quest:", "story:"), dependencies=["quest"])
    async with quarantining(tmp_path) as host:
        await ask(host, "broken", 8)
        await host.manager.settle()
        assert isinstance(host.assert_state("story", PluginState.BLOCKED).reason, DependencyHeldError)
        answer = await ask(host, "ok", plugin="story")
        assert answer.status_code == 503
        assert answer.json()["detail"] == (
            "plugin 'story' is out of service, since plugin 'quest' is out of service after failing too often"
        )
        await host.manager.retry("quest")
        host.assert_state("quest", PluginState.ENABLED)
        host.assert_state("story", PluginState.ENABLED)
        assert (await ask(host, "ok", plugin="story")).status_code == 200
        assert (await ask(host, "ok")).status_code == 200


async def test_after_the_pause_it_is_tried_and_a_good_trial_ends_well(tmp_path: Path) -> None:
    """Half open, then closed; a later failure starts with the short pause again."""
    write_plugin(tmp_path, "quest", QUEST)
    async with quarantining(tmp_path) as host:
        quarantine = host.manager._supervision.quarantine
        assert quarantine is not None
        await ask(host, "broken", 8)
        await host.manager.settle()
        let_pause_end(host)
        await host.manager.settle()
        host.assert_state("quest", PluginState.ENABLED)
        assert str(quarantine.breakers["quest"].state) == "half-open"
        assert (await ask(host, "ok")).status_code == 200
        await until(lambda: quarantine.breakers["quest"].state is BreakerState.CLOSED)
        await until(lambda: not host.manager._runner.stand_ins)


async def test_a_relapse_is_noticed_sooner_and_doubles_the_pause(tmp_path: Path) -> None:
    """A quarter of the requests is enough on trial, whoever began it."""
    write_plugin(tmp_path, "quest", QUEST)
    async with quarantining(tmp_path) as host:
        pauses = []
        for count in (8, 2, 2):
            await ask(host, "broken", count)
            await host.manager.settle()
            reason = host.assert_state("quest", PluginState.FAILED).reason
            assert isinstance(reason, QuarantinedError)
            pauses.append((reason.fields["trips"], reason.fields["pause"]))
            if len(pauses) == 1:
                let_pause_end(host)
                await host.manager.settle()
            elif len(pauses) == 2:
                await host.manager.retry("quest")
        assert pauses == [(1, 600), (2, 1200), (3, 2400)]


async def test_one_that_does_not_start_again_stays_and_waits_longer(tmp_path: Path) -> None:
    """The reason says why the trial failed."""
    flag = tmp_path / "broken"
    breaks = (
        f"async def on_enable():\n    if __import__('pathlib').Path({str(flag)!r}).exists():\n        raise ValueError"
    )
    write_plugin(tmp_path, "quest", f"{QUEST}\n{breaks}('still')")
    async with quarantining(tmp_path) as host:
        await ask(host, "broken", 8)
        await host.manager.settle()
        flag.touch()
        let_pause_end(host)
        await host.manager.settle()
        flag.unlink()
        reason = host.assert_state("quest", PluginState.FAILED).reason
        assert isinstance(reason, QuarantinedError)
        assert "it did not start again: on_enable of plugin 'quest' raised ValueError: still" in str(reason)
        assert reason.fields["pause"] == 1200
        assert (await ask(host, "ok")).status_code == 503
        let_pause_end(host)
        await host.manager.settle()
        host.assert_state("quest", PluginState.ENABLED)


async def test_overrunning_handlers_and_a_blocked_loop_are_evidence_too(tmp_path: Path) -> None:
    """Each by itself; the evidence says which."""
    write_plugin(tmp_path, "quest", QUEST)
    async with quarantining(tmp_path) as host:
        before, plugin_hooks.handler_timeout = plugin_hooks.handler_timeout, 0.05
        try:
            for _ in range(3):
                await plugin_hooks.emit("quest:asked")
        finally:
            plugin_hooks.handler_timeout = before
        await host.manager.settle()
        reason = host.assert_state("quest", PluginState.FAILED).reason
        assert "within 30 s 3 event handlers overran; last: " in str(reason)
        assert ".hang: ran longer than 0.05 s" in str(reason)
    async with plugin_host(tmp_path, breaker=replace(BREAKER, stalled=0.5), stall_threshold=0.15) as host:
        await asyncio.sleep(0.1)
        await ask(host, "block")
        await until(lambda: host.record("quest").state is not PluginState.ENABLED)
        reason = host.assert_state("quest", PluginState.FAILED).reason
        assert "the event loop was blocked for " in str(reason)
        assert "manifest.py:" in str(reason)


async def test_what_is_away_for_everybody_is_no_plugins_fault(tmp_path: Path) -> None:
    """503 answers blame something else: a database that is down must not take every plugin out."""
    write_plugin(tmp_path, "quest", QUEST)
    async with quarantining(tmp_path) as host:
        await ask(host, "away", 50)
        await host.manager.settle()
        host.assert_state("quest", PluginState.ENABLED)
        assert host.manager.metrics.of("quest").errors == 50


@pytest.mark.parametrize("required", ["quest", "story"])
async def test_what_the_app_cannot_do_without_is_only_reported(
    required: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A required plugin, and one that a required one needs, serve on; the log says so once in a while."""
    write_plugin(tmp_path, "quest", QUEST, required=required == "quest")
    write_plugin(tmp_path, "story", "", dependencies=["quest"], required=required == "story")
    async with quarantining(tmp_path) as host:
        await ask(host, "broken", 9)
        await host.manager.settle()
        host.assert_state("quest", PluginState.ENABLED)
        said = [each.getMessage() for each in caplog.records if "serves on" in each.getMessage()]
        assert len(said) == 1
        assert "8 of 8 requests failed" in said[0] or "9 of 9 requests failed" in said[0]


async def test_the_operators_wishes_win(tmp_path: Path) -> None:
    """A quarantined plugin that is switched off is off: 404, and no trial."""
    write_plugin(tmp_path, "quest", QUEST)
    async with quarantining(tmp_path) as host:
        await ask(host, "broken", 8)
        await host.manager.settle()
        await host.manager.disable("quest")
        host.assert_state("quest", PluginState.DISABLED)
        let_pause_end(host)
        await host.manager.settle()
        host.assert_state("quest", PluginState.DISABLED)
        await until(lambda: not host.manager._runner.stand_ins)
        assert (await ask(host, "ok")).status_code == 404
        await host.manager.enable("quest")
        assert (await ask(host, "ok")).status_code == 200


async def test_without_a_breaker_nothing_is_quarantined(tmp_path: Path) -> None:
    """It can be switched off; figures are kept all the same."""
    write_plugin(tmp_path, "quest", QUEST)
    async with plugin_host(tmp_path, breaker=None) as host:
        await ask(host, "broken", 50)
        await host.manager.settle()
        host.assert_state("quest", PluginState.ENABLED)
        assert host.manager.metrics.of("quest").errors == 50


async def test_under_load_the_others_notice_nothing(tmp_path: Path) -> None:
    """While one plugin fails, is taken out and comes back, another one answers every request."""
    write_plugin(tmp_path, "quest", QUEST)
    write_plugin(tmp_path, "other", QUEST.replace("quest:", "other:"))
    statuses: dict[str, set[int]] = {"quest": set(), "other": set()}
    async with quarantining(tmp_path) as host:
        is_over = False

        async def client(plugin: str, path: str) -> None:
            while not is_over:
                statuses[plugin].add((await ask(host, path, plugin=plugin)).status_code)

        clients = [asyncio.create_task(client(*each)) for each in [("quest", "broken"), ("other", "ok")] * 4]
        for _ in range(3):
            await until(lambda: host.record("quest").state is not PluginState.ENABLED)
            await host.manager.settle()
            await host.manager.retry("quest")
        is_over = True
        await asyncio.gather(*clients)
    assert statuses == {"quest": {500, 503}, "other": {200}}
