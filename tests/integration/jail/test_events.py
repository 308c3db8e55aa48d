"""Events of a confined plugin: both halves, over frames that were bytes; the jail's half runs in this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pixsim7_backend.infrastructure.plugins import HookBus, plugin_hooks
from pixsim7_backend.infrastructure.plugins._grants.permissions import Grants, Permission
from pixsim7_backend.infrastructure.plugins._jail.broker import Broker
from pixsim7_backend.infrastructure.plugins._jail.errors import JailGoneError
from pixsim7_backend.infrastructure.plugins._jail.frames import Decoder, Kind, encode
from pixsim7_backend.infrastructure.plugins._jail.inside import events as inside
from pixsim7_backend.infrastructure.plugins._jail.inside import services
from pixsim7_backend.infrastructure.plugins._jail.inside.services import BrokerCallError
from pixsim7_backend.infrastructure.plugins._jail.services.delivery import DeliveryLimits
from pixsim7_backend.infrastructure.plugins._jail.services.events import JailEvents
from pixsim7_backend.infrastructure.plugins._jail.services.payload import PayloadError
from pixsim7_backend.infrastructure.plugins._ledger.ownership import AppKey, Entry, Owner, running_as
from tests.integration.community.loopback import Loopback, identity

pytestmark = pytest.mark.anyio


class Meeting:
    """A host with a bus of its own, and a plugin in a jail, whose bus is that of this process."""

    def __init__(self, directory: Path, limits: DeliveryLimits | None = None) -> None:
        self.host = HookBus()
        self.owner = Owner(AppKey("test"), "quest-stats", 1, "quest_stats", f"{directory}/")
        self.events = JailEvents(self.owner, self.host, ["quest:finished"], self.ask, limits=limits)
        self.channel = Loopback(asyncio.get_running_loop(), lambda _: None)
        self.asked: list[list[Any]] = []
        self.before_answer: Callable[[], Awaitable[None]] = self._at_once
        self._directory = directory

    async def _at_once(self) -> None:
        """Answer at once."""

    async def ask(self, method: str, *args: Any) -> Any:
        """Stand for the jail's process: do what ``inside/plugin.py`` does when it is asked."""
        (frame,) = Decoder().feed(encode(Kind.ASK, 1, method, list(args)))
        name, positional, named = frame.payload[1]
        self.asked.append([name, positional, named])
        await self.before_answer()
        await HookBus.emit(plugin_hooks, name, *positional, **named)

    async def start(self, *granted: str) -> None:
        """Start a process: the plugin has registered what it has, and is enabled."""
        grants = Grants(frozenset(map(Permission.parse, granted)))
        self.channel.broker = Broker(identity(self._directory), grants, [self.events], reply=self.channel.reply)
        inside.install(None)  # type: ignore[arg-type]
        await inside.announce()

    async def settle(self) -> None:
        """Wait until everything that was announced has arrived."""
        for _ in range(5):
            await asyncio.sleep(0)
        while (task := self.events.delivery._task) is not None and not task.done():
            await asyncio.wait([task])
            await asyncio.sleep(0)


@pytest.fixture
async def meeting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Meeting]:
    """A host and a jail that has not been started."""
    made = Meeting(tmp_path)
    monkeypatch.setattr(services._Process, "channel", made.channel)
    monkeypatch.setattr(inside._Process, "outlet", None)
    monkeypatch.setattr(plugin_hooks, "_outlet", None)
    monkeypatch.setattr(plugin_hooks, "emit", plugin_hooks.emit)
    monkeypatch.setattr(plugin_hooks, "_subscriptions", {})
    monkeypatch.setattr(plugin_hooks, "_audiences", {})
    yield made
    await made.channel.broker.close()


async def until(is_true: Callable[[], bool]) -> None:
    """Wait for what happens on this loop by and by."""
    async with asyncio.timeout(20):
        while not is_true():  # noqa: ASYNC110 - the product has nothing to wait for
            await asyncio.sleep(0)


async def test_granted_events_are_heard(meeting: Meeting) -> None:
    """In their order, with their payload; the emitter does not wait for them."""
    heard: list[Any] = []
    plugin_hooks.register("session:created", heard.append)
    plugin_hooks.register("session:updated", lambda session, changes: heard.append((session, changes)))
    await meeting.start("events:subscribe:session:*")
    blocked = asyncio.Event()

    async def block() -> None:
        await blocked.wait()

    meeting.before_answer = block
    await meeting.host.emit("session:created", 1)
    await meeting.host.emit("session:updated", 1, {"a": [1, None]})
    await meeting.host.emit("session:created", 2)
    assert heard == []
    blocked.set()
    await meeting.settle()
    assert heard == [1, (1, {"a": [1, None]}), 2]


async def test_events_that_are_not_granted_are_not_heard(meeting: Meeting, caplog: pytest.LogCaptureFixture) -> None:
    """They never leave the host, and the plugin's log says what to ask for."""
    for event in ("session:created", "npc:spawned"):
        plugin_hooks.register(event, lambda *_: None)
    await meeting.start("events:subscribe:npc:spawned")
    await meeting.host.emit("session:created", 1)
    await meeting.host.emit("npc:spawned", 2)
    await meeting.settle()
    assert [name for name, *_ in meeting.asked] == ["npc:spawned"]
    assert "events:subscribe:session:created" in caplog.text


async def test_what_is_registered_later_is_heard_too(meeting: Meeting) -> None:
    """Also from another thread; and what is cancelled is not sent any more."""
    await meeting.start("events:subscribe")
    heard: list[Any] = []
    subscription = await asyncio.to_thread(plugin_hooks.register, "npc:spawned", heard.append)
    await until(lambda: bool(meeting.host.iter_subscriptions("npc:spawned")))
    await meeting.host.emit("npc:spawned", 1)
    await meeting.settle()
    subscription.cancel()
    await until(lambda: not meeting.events._wanted)
    await meeting.host.emit("npc:spawned", 2)
    await meeting.settle()
    assert heard == [1]
    assert len(meeting.asked) == 1


async def test_coming_and_going_leaves_nothing_on_the_ledger(meeting: Meeting) -> None:
    """However often a jail changes its mind, there is one subscription for each event."""
    await meeting.start("events:subscribe")
    for _ in range(50):
        await services.acall("events.subscribe", ["npc:spawned", "session:created"])
        await services.acall("events.subscribe", [])
    assert len(meeting.owner.ledger.entries) == 2


async def test_the_ledger_ends_what_is_heard(meeting: Meeting) -> None:
    """When the generation is withdrawn nothing is delivered; when it is enabled again, everything is."""
    plugin_hooks.register("npc:spawned", lambda _: None)
    await meeting.start("events:subscribe")
    meeting.owner.ledger.undo("subscription")
    await meeting.host.emit("npc:spawned", 1)
    await meeting.settle()
    assert meeting.asked == []
    await meeting.start("events:subscribe")
    await meeting.host.emit("npc:spawned", 2)
    await meeting.settle()
    assert meeting.asked == [["npc:spawned", [2], {}]]


async def test_a_plugin_emits_what_is_its_own_and_what_is_granted(meeting: Meeting) -> None:
    """The host's handlers have run when ``emit`` returns, and its own handlers are called once."""
    theirs: list[Any] = []
    ours: list[Any] = []
    meeting.host.register("quest:finished", lambda *args, **kwargs: theirs.append((args, kwargs)))
    meeting.host.register("npc:spawned", lambda *args: theirs.append(args))

    def finished(number: int, *, by: str) -> str:
        ours.append(number)
        return by

    plugin_hooks.register("quest:finished", finished)
    await meeting.start("events:emit:npc:*")
    outcome = await plugin_hooks.emit("quest:finished", 7, by="ada")
    await plugin_hooks.emit("npc:spawned", 3)
    await meeting.settle()
    assert theirs == [((7,), {"by": "ada"}), (3,)]
    assert ours == [7]
    assert list(outcome) == ["ada"]


async def test_its_own_event_is_heard_when_others_emit_it(meeting: Meeting) -> None:
    """Only the echo of its own word is left out."""
    ours: list[Any] = []
    plugin_hooks.register("quest:finished", ours.append)
    await meeting.start()
    await meeting.host.emit("quest:finished", 1)
    await meeting.settle()
    assert ours == [1]


async def test_what_follows_from_its_event_is_heard(meeting: Meeting) -> None:
    """A handler in the host that answers with another event is answered."""
    ours: list[Any] = []
    plugin_hooks.register("npc:spawned", ours.append)

    async def answer(number: int) -> None:
        await meeting.host.emit("npc:spawned", number)

    meeting.host.register("quest:finished", answer)
    await meeting.start("events:subscribe:npc:spawned")
    await plugin_hooks.emit("quest:finished", 5)
    await meeting.settle()
    assert ours == [5]


@pytest.mark.parametrize(
    "event",
    ["session:created", "plugin:enabled", "plugin:settings_changed", "app:startup", "app:shutdown", "x", "a:b\n"],
)
async def test_other_events_are_refused(meeting: Meeting, event: str) -> None:
    """Those of others, and always those of the host: nobody hears them, in the jail either."""
    theirs: list[Any] = []
    meeting.host.register("session:created", theirs.append)
    meeting.host.register("plugin:enabled", theirs.append)
    granted = ["events:emit"] if event.startswith(("plugin:", "app:")) else ["events:emit:npc:*"]
    await meeting.start(*granted)
    ours: list[Any] = []
    if event.isprintable() and ":" in event:
        plugin_hooks.register(event, ours.append)
    with pytest.raises(BrokerCallError):
        await plugin_hooks.emit(event, "auth")
    assert theirs == ours == []


async def test_a_manifest_makes_no_event_of_the_game_its_own(meeting: Meeting) -> None:
    """To declare it is neither a permission to emit it nor one to hear it."""
    theirs: list[Any] = []
    meeting.events = JailEvents(meeting.owner, meeting.host, ["session:created", "npc:bought"], meeting.ask)
    for event in ("session:created", "npc:bought"):
        meeting.host.register(event, theirs.append)
        plugin_hooks.register(event, lambda _: None)
    await meeting.start()
    for event in ("session:created", "npc:bought"):
        with pytest.raises(BrokerCallError, match="may emit"):
            await plugin_hooks.emit(event, 1)
        assert theirs == []
        await meeting.host.emit(event, 2)
        theirs.clear()
    await meeting.settle()
    assert meeting.asked == []


async def test_of_the_host_s_life_only_what_is_harmless_is_heard(meeting: Meeting) -> None:
    """The id of a plugin, and that the app has started; nothing that might go with it one day."""
    for event in ("plugin:enabled", "app:startup"):
        plugin_hooks.register(event, lambda *_: None)
    await meeting.start("events:subscribe:plugin:enabled")
    await meeting.host.emit("plugin:enabled", "auth", {"secret": "key"}, manifest="all of it")
    await meeting.host.emit("app:startup", {"secret": "key"})
    await meeting.settle()
    assert meeting.asked == [["plugin:enabled", ["auth"], {}], ["app:startup", [], {}]]


async def test_payloads_are_plain_in_both_directions(meeting: Meeting, caplog: pytest.LogCaptureFixture) -> None:
    """An object of the host's stays there, with one line in the log; one of the plugin's is an error for it."""
    plugin_hooks.register("npc:spawned", lambda _: None)
    await meeting.start("events:subscribe")
    for _ in range(3):
        await meeting.host.emit("npc:spawned", object())
    await meeting.settle()
    assert meeting.asked == []
    assert caplog.text.count("cannot be delivered") == 1
    with pytest.raises(PayloadError, match="quest:finished cannot leave the plugin"):
        await plugin_hooks.emit("quest:finished", object())
    with pytest.raises(BrokerCallError, match="bytes"):  # a jail need not ask its own half
        await services.acall("events.emit", "quest:finished", [b"x"], {})


async def test_too_many_are_dropped_and_counted(
    meeting: Meeting, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """The emitter never waits; the log says when it begins, and how many there were."""
    meeting.events.delivery._limits = DeliveryLimits(waiting=5)
    plugin_hooks.register("npc:spawned", lambda _: None)
    await meeting.start("events:subscribe")
    blocked = asyncio.Event()

    async def block() -> None:
        await blocked.wait()

    meeting.before_answer = block
    with caplog.at_level(logging.WARNING, "pixsim7.plugins.jail"):
        for number in range(100):
            await meeting.host.emit("npc:spawned", number)
        blocked.set()
        await meeting.settle()
    assert [args[0] for _, args, _ in meeting.asked] == list(range(5))
    assert meeting.events.delivery.dropped == 95
    assert "95 could not be delivered" in caplog.text
    await meeting.host.emit("npc:spawned", 100)
    await meeting.settle()
    assert meeting.asked[-1][1] == [100]


async def test_an_event_that_ends_the_jail_is_not_tried_again(meeting: Meeting) -> None:
    """The next ones are delivered to its next process."""
    plugin_hooks.register("npc:spawned", lambda _: None)
    await meeting.start("events:subscribe")

    async def die() -> None:
        meeting.before_answer = meeting._at_once
        raise JailGoneError("it has ended")

    meeting.before_answer = die
    await meeting.host.emit("npc:spawned", 1)
    await meeting.host.emit("npc:spawned", 2)
    await meeting.settle()
    assert [args for _, args, _ in meeting.asked] == [[1], [2]]
    assert meeting.events.delivery.dropped == 1


async def test_handlers_of_the_host_run_to_their_end(meeting: Meeting) -> None:
    """Though the jail that emitted is gone meanwhile."""
    begun, go, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work(_number: int) -> None:
        begun.set()
        await go.wait()
        ended.set()

    meeting.host.register("quest:finished", work)
    await meeting.start()
    emitting = asyncio.create_task(plugin_hooks.emit("quest:finished", 1))
    await begun.wait()
    await meeting.channel.broker.close()
    go.set()
    await asyncio.wait_for(ended.wait(), 20)
    emitting.cancel()
    await asyncio.wait([emitting])


async def test_only_its_own_app_is_heard(meeting: Meeting) -> None:
    """Another app in the same process has events of its own."""
    plugin_hooks.register("npc:spawned", lambda _: None)
    await meeting.start("events:subscribe")
    other = Owner(AppKey("other"), "npcs", 1, "npcs", "/nowhere/")
    with running_as(other, Entry.REQUEST):
        await meeting.host.emit("npc:spawned", 1)
    await meeting.settle()
    assert meeting.asked == []


@pytest.mark.parametrize(
    ("method", "args"),
    [
        ("subscribe", [["x"]]), ("subscribe", [[1]]), ("subscribe", ["npc:spawned"]), ("emit", ["quest:finished"]),
        ("emit", ["quest:finished", {}, []]), ("emit", [1, [], {}]), ("register", []),
        ("subscribe", [[f"a:b{number}" for number in range(201)]]), ("emit", ["quest:finished", [], {1: 2}]),
    ],
)  # fmt: skip
async def test_calls_that_are_none_are_refused(meeting: Meeting, method: str, args: list[Any]) -> None:
    """A jail need not use its own half."""
    await meeting.start("events:subscribe")
    with pytest.raises(BrokerCallError) as raised:
        await services.acall(f"events.{method}", *args)
    assert raised.value.kind != "HostError"
