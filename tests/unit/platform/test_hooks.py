"""The hook bus: order, isolation, deadlines, ownership, apps."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from typing import Any

import pytest

from pixsim7_backend.infrastructure.plugins import plugin_hooks
from pixsim7_backend.infrastructure.plugins._hooks.bus import HandlerTimeoutError, HookBus
from pixsim7_backend.infrastructure.plugins._ledger.ownership import (
    AppKey,
    Entry,
    Owner,
    current_owner,
    running_as,
    running_as_host,
)

pytestmark = pytest.mark.anyio


def owner_of(plugin: str, app: AppKey | None = None) -> Owner:
    return Owner(app or AppKey(), plugin, 1, f"plugins.{plugin}", f"/plugins/{plugin}/")


async def test_handlers_run_in_registration_order_and_their_results_are_the_outcome() -> None:
    """Sync and async handlers run one after the other; the outcome is the sequence of their results."""
    bus = HookBus()
    seen: list[str] = []

    async def slow(name: str) -> str:
        await asyncio.sleep(0.01)
        seen.append("slow")
        return f"slow {name}"

    def quick(name: str) -> str:
        seen.append("quick")
        return f"quick {name}"

    bus.register("quest:finished", slow)
    bus.register("quest:finished", quick)
    outcome = await bus.emit("quest:finished", "dragon")
    assert list(outcome) == ["slow dragon", "quick dragon"]
    assert (len(outcome), outcome[1], outcome[:1], outcome.failures) == (2, "quick dragon", ["slow dragon"], ())
    assert seen == ["slow", "quick"]


async def test_an_event_nobody_hears_has_an_empty_outcome() -> None:
    """Emitting without handlers is fine."""
    outcome = await HookBus().emit("quest:finished", 1)
    assert list(outcome) == []
    assert outcome.failures == ()


async def test_a_failing_handler_stops_neither_the_others_nor_the_emitter(caplog: pytest.LogCaptureFixture) -> None:
    """Its exception is in the outcome and in the log, with the plugin's id and the handler's name."""
    bus = HookBus()

    def broken(_quest: int) -> None:
        raise RuntimeError("no dragon")

    with running_as(owner_of("game-quests"), Entry.HOOK):
        bus.register("quest:finished", broken)
    bus.register("quest:finished", lambda quest: quest)
    with caplog.at_level(logging.ERROR, logger="pixsim7.plugins"):
        outcome = await bus.emit("quest:finished", 7)
    assert list(outcome) == [7]
    (failure,) = outcome.failures
    assert (failure.plugin, str(failure.error)) == ("game-quests", "no dragon")
    assert failure.handler.endswith("broken")
    assert "Handler of quest:finished failed" in caplog.text
    assert "game-quests" in caplog.text


async def test_a_handler_that_exits_is_a_handler_that_fails() -> None:
    """``sys.exit()`` in one ends neither the emitter nor the server."""
    bus = HookBus()

    async def leaves() -> None:
        sys.exit(3)

    bus.register("quest:finished", leaves)
    bus.register("quest:finished", lambda: "next")
    outcome = await bus.emit("quest:finished")
    assert list(outcome) == ["next"]
    assert isinstance(outcome.failures[0].error, SystemExit)


async def test_a_handler_that_overruns_is_cancelled_and_the_others_go_on() -> None:
    """A hanging handler ends between one and two time limits; the next one runs."""
    bus = HookBus(handler_timeout=0.1)
    cancelled = asyncio.Event()

    async def hangs() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    bus.register("quest:finished", hangs)
    bus.register("quest:finished", lambda: "next")
    started = time.monotonic()
    outcome = await bus.emit("quest:finished")
    assert list(outcome) == ["next"]
    assert isinstance(outcome.failures[0].error, HandlerTimeoutError)
    assert cancelled.is_set()
    assert 0.1 <= time.monotonic() - started < 5
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_two_hanging_handlers_are_each_ended_by_the_one_timer() -> None:
    """The shared timer serves every handler of an emit, and emits at the same time."""
    bus = HookBus(handler_timeout=0.05)

    async def hangs() -> None:
        await asyncio.sleep(60)

    bus.register("quest:finished", hangs)
    bus.register("quest:finished", hangs)
    outcomes = await asyncio.gather(*(bus.emit("quest:finished") for _ in range(10)))
    assert [len(outcome.failures) for outcome in outcomes] == [2] * 10


async def test_a_handler_that_swallows_the_cancellation_counts_as_failed() -> None:
    """Its late result is not taken for a success."""
    bus = HookBus(handler_timeout=0.05)

    async def stubborn() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "late"
        return "never"

    bus.register("quest:finished", stubborn)
    outcome = await bus.emit("quest:finished")
    assert list(outcome) == []
    assert len(outcome.failures) == 1


async def test_cancelling_the_emitter_cancels_it_and_no_handler_is_blamed() -> None:
    """A cancelled request takes its emit with it; the bus does not swallow the cancellation."""
    bus = HookBus()
    reached: list[str] = []

    async def waits() -> None:
        await asyncio.sleep(60)

    bus.register("quest:finished", waits)
    bus.register("quest:finished", lambda: reached.append("second"))
    emitting = asyncio.create_task(bus.emit("quest:finished"))
    await asyncio.sleep(0.01)
    emitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await emitting
    assert reached == []


async def test_a_subscription_can_be_cancelled_also_in_the_middle_of_an_emit() -> None:
    """A handler cancelled by an earlier one is not called any more."""
    bus = HookBus()
    calls: list[str] = []

    def cancel_second() -> None:
        second.cancel()

    first = bus.register("quest:finished", cancel_second)
    second = bus.register("quest:finished", lambda: calls.append("second"))
    await bus.emit("quest:finished")
    first.cancel()
    first.cancel()
    await bus.emit("quest:finished")
    assert calls == []
    assert bus.iter_subscriptions() == ()


async def test_handlers_run_as_their_plugin_and_the_emitter_stays_itself() -> None:
    """The running owner is the handler's plugin inside, and the emitter's again afterwards."""
    bus = HookBus()
    inside: list[str | None] = []
    quests, shop = owner_of("quests"), owner_of("shop")

    def note(*_payload: Any) -> None:
        owner = current_owner()
        inside.append(owner.plugin if owner else None)

    for owner in (quests, shop):
        with running_as(owner, Entry.HOOK):
            bus.register("quest:finished", note)
    with running_as(owner_of("emitter"), Entry.REQUEST):
        await bus.emit("quest:finished")  # other apps' plugins: each owner here has an app of its own
        assert current_owner() is not None
    await bus.emit("quest:finished")
    assert inside == ["quests", "shop"]
    assert current_owner() is None


async def test_apps_hear_their_own_events_and_everybody_hears_those_of_no_app() -> None:
    """Two apps in one process do not hear each other; a subscription without app hears both."""
    bus = HookBus()
    one, other = AppKey("one"), AppKey("other")
    heard: list[str] = []
    for app in (one, other):
        with running_as(owner_of("quests", app), Entry.HOOK):
            bus.register("quest:finished", lambda app=app: heard.append(app.name))
    bus.register("quest:finished", lambda: heard.append("everywhere"))
    with running_as_host(one):
        await bus.emit("quest:finished")
    assert heard == ["one", "everywhere"]
    heard.clear()
    await bus.emit("quest:finished")
    assert heard == ["one", "other", "everywhere"]


def test_a_subscription_is_on_the_ledger_of_its_plugin() -> None:
    """Undoing the ledger cancels it."""
    bus = HookBus()
    owner = owner_of("quests")
    with running_as(owner, Entry.HOOK):
        bus.register("quest:finished", print)
    undone, leaks = owner.ledger.undo()
    assert undone == ("subscription quest:finished → builtins.print",)
    assert leaks == ()
    assert bus.iter_subscriptions() == ()


@pytest.mark.parametrize("event", ["", "quest", "Quest:finished", "quest:finished:twice", "quest finished"])
def test_a_malformed_event_name_is_refused_with_an_example(event: str) -> None:
    """The message shows how an event is written."""
    with pytest.raises(ValueError, match="write it like 'quest:finished'"):
        HookBus().register(event, print)


def test_a_handler_must_be_callable() -> None:
    """Registering the result of a call instead of the function is noticed at once."""
    with pytest.raises(TypeError, match="a handler of 'quest:finished' must be a function, not str"):
        HookBus().register("quest:finished", "handler")  # type: ignore[arg-type]


def test_the_guides_hooks_are_one_bus_for_the_process() -> None:
    """`plugin_hooks` is a HookBus."""
    assert isinstance(plugin_hooks, HookBus)
