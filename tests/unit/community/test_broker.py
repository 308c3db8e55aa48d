"""What the broker does with calls, whoever serves them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from pixsim7_backend.infrastructure.plugins._grants.permissions import Grants, Permission
from pixsim7_backend.infrastructure.plugins._jail.broker import (
    Broker,
    BrokerError,
    BrokerLimits,
    CallContext,
    JailIdentity,
    Meter,
)

pytestmark = pytest.mark.anyio
JAIL = JailIdentity(plugin="some-plugin", generation=1, directory=Path("/plugin"), scratch=Path("/scratch"))


class Echo:
    """A service, and its session."""

    family = "echo"
    inside: str | None = None
    permissions: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.at_once = self.most = self.closed = 0
        self.go_on = asyncio.Event()

    def describe(self, jail: JailIdentity, grants: Grants) -> Mapping[str, Any]:
        return {}

    def open(self, jail: JailIdentity, grants: Grants) -> Echo:
        return self

    async def call(self, method: str, args: Sequence[Any], call: CallContext) -> Any:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            if method == "wait":
                await self.go_on.wait()
            if method == "fail":
                raise ZeroDivisionError("a secret path")
            if method == "refuse":
                raise BrokerError("OddError", "this is odd")
            call.count("letters", len(str(args)))
            return list(args)
        finally:
            self.at_once -= 1

    async def close(self) -> None:
        self.closed += 1


class Calls:
    """A broker with its replies."""

    def __init__(self, service: Echo, *granted: str, limits: BrokerLimits | None = None) -> None:
        self.replies: dict[int, tuple[bool, Any]] = {}
        self.replied = asyncio.Event()
        grants = Grants(frozenset(map(Permission.parse, granted)))
        self.broker = Broker(JAIL, grants, [service], reply=self._reply, limits=limits)

    def _reply(self, number: int, is_good: bool, value: Any) -> None:
        self.replies[number] = (is_good, value)
        self.replied.set()

    async def ask(self, number: int, method: str, *args: Any) -> tuple[bool, Any]:
        self.broker.take(number, method, list(args))
        return await self.reply_to(number)

    async def reply_to(self, number: int) -> tuple[bool, Any]:
        while number not in self.replies:
            self.replied.clear()
            await self.replied.wait()
        return self.replies[number]


async def test_a_call_is_answered_and_counted() -> None:
    """The value of a call comes back under its number, and what it used is counted."""
    calls = Calls(Echo())
    assert await calls.ask(7, "echo.say", "hello") == (True, ["hello"])
    assert calls.broker.meter.total["echo.calls"] == 1
    assert calls.broker.meter.total["echo.letters"] == 9


async def test_what_goes_wrong_tells_the_plugin_little() -> None:
    """A refusal is shown; of the host's own mistakes the plugin learns nothing."""
    calls = Calls(Echo())
    assert await calls.ask(1, "echo.refuse") == (False, {"type": "OddError", "text": "this is odd"})
    is_good, said = await calls.ask(2, "echo.fail")
    assert (is_good, said["type"]) == (False, "HostError")
    assert "secret" not in said["text"]
    assert await calls.ask(3, "other.say") == (
        False,
        {"type": "UnknownCallError", "text": "the host knows no 'other.say'"},
    )


async def test_a_family_needs_its_permission() -> None:
    """Without one of its permissions a service is not even opened."""
    service = Echo()
    service.permissions = ("db:read",)
    is_good, said = await Calls(service).ask(1, "echo.say")
    assert (is_good, said["type"]) == (False, "NotGrantedError")
    assert await Calls(service, "db:read:heroes").ask(1, "echo.say") == (True, [])


async def test_calls_wait_for_their_turn_and_the_queue_ends() -> None:
    """So many calls are carried out at once, so many more wait, and the next is refused."""
    service = Echo()
    calls = Calls(service, limits=BrokerLimits(concurrent=2, waiting=4))
    for number in range(1, 5):
        calls.broker.take(number, "echo.wait", [])
    for _ in range(10):
        await asyncio.sleep(0)
    assert (await calls.ask(5, "echo.say"))[1]["type"] == "TooManyCallsError"
    assert calls.broker.meter.refused == {"waiting": 1}
    service.go_on.set()
    for number in range(1, 5):
        await calls.reply_to(number)
    assert service.most == 2


async def test_a_call_has_a_time_limit() -> None:
    """A call that is not done in time is cancelled, and the plugin told."""
    calls = Calls(Echo(), limits=BrokerLimits(call_time=0.05))
    assert (await calls.ask(1, "echo.wait"))[1]["type"] == "CallTimeoutError"


async def test_the_end_of_a_jail_ends_its_calls() -> None:
    """When the jail is gone its calls are cancelled, its sessions closed, and nothing is answered any more."""
    service = Echo()
    calls = Calls(service)
    calls.broker.take(1, "echo.wait", [])
    await asyncio.sleep(0)
    await calls.broker.close()
    calls.broker.take(2, "echo.say", [])
    await asyncio.sleep(0)
    assert (calls.replies, service.at_once, service.closed) == ({}, 0, 1)


def test_a_share_is_for_a_minute() -> None:
    """What was used counts until the minute is over, and in all for ever."""
    now = [0.0]
    meter = Meter({"echo.calls": 2}, lambda: now[0], plugin="census")
    meter.add("echo.calls", 2)
    now[0] = 57.9
    with pytest.raises(
        BrokerError, match=r"'census' has used its 2 echo\.calls of this minute; try again in 3 s"
    ) as used:
        meter.check("echo")
    fields = {"plugin": "census", "what": "echo.calls", "allowed": 2, "retry_after": 3}  # never before there is more
    assert (used.value.kind, used.value.fields) == ("ShareUsedUpError", fields)
    meter.check("other")
    now[0] = 60.0
    meter.check("echo")
    assert meter.total["echo.calls"] == 2


def test_operators_see_that_a_share_is_used_up(caplog: pytest.LogCaptureFixture) -> None:
    """The log says so once a minute, with the setting that allows more; every refused call is counted."""
    now = [0.0]
    meter = Meter({"echo.calls": 1, "other.calls": 1}, lambda: now[0], plugin="census")
    for minute in (0.0, 60.0):
        now[0] = minute
        meter.add("echo.calls", 1)
        meter.add("other.calls", 1)
        for family in ("echo", "echo", "other"):
            with pytest.raises(BrokerError):
                meter.check(family)
    assert meter.refused == {"echo.calls": 4, "other.calls": 2}
    line = (
        "Plugin census has used its 1 echo.calls of this minute: such calls are refused for 60 s;"
        " COMMUNITY_CALLS=census.echo.calls=2 would allow more"
    )
    assert caplog.messages == [line, line]


def test_limits_of_a_minute_can_be_those_of_one_plugin() -> None:
    """What is said of a plugin counts more than what is said of all; None is no limit."""
    limits = BrokerLimits(
        per_minute={"db.rows": 5, "http.calls": 7, "redis.calls": None, "census.db.rows": None, "census.redis.calls": 3}
    )
    assert limits.per_minute_of("census") == {"http.calls": 7, "redis.calls": 3}
    assert limits.per_minute_of("other") == {"db.rows": 5, "http.calls": 7}
