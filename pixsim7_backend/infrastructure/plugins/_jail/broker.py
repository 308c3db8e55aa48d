"""The host's side of what a jail calls: services that do it, and what one jail may ask of them.

A call names a family and what it wants of it, like ``db.execute``. The broker opens the family's session when
it is first called, refuses what was not granted, and counts. What a service raises as a BrokerError is shown to
the plugin; of anything else it learns only that the host could not.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from pixsim7_backend.infrastructure.plugins._grants.permissions import Grants
from pixsim7_backend.infrastructure.plugins.errors import ShareUsedUpError

__all__ = [
    "PER_MINUTE",
    "Broker",
    "BrokerError",
    "BrokerLimits",
    "CallContext",
    "Grants",
    "JailIdentity",
    "Meter",
    "Service",
    "ServiceSession",
]

_log = logging.getLogger("pixsim7.plugins.broker")
_MINUTE = 60.0
_ENDING = frozenset({"commit", "rollback", "fetch", "forget", "close", "subscribe"})
"""Methods that are answered though the minute's share is used up: they end what was begun, and cost nothing."""


PER_MINUTE: Mapping[str, int | None] = MappingProxyType({
    "db.milliseconds": 30_000, "db.rows": 2_000_000, "db.bytes": 512 << 20,
    "redis.calls": 60_000, "redis.bytes": 256 << 20,
    "http.calls": 20_000, "http.bytes": 512 << 20,
    "events.calls": 6_000,
})  # fmt: skip
"""What a plugin may use in a minute where nobody says otherwise."""


class BrokerError(Exception):
    """A call was refused or failed; the plugin is shown all of it: no path and no secret of the host."""

    def __init__(self, kind: str, text: str, **fields: Any) -> None:
        super().__init__(text)
        self.kind = kind
        self.fields = fields


@dataclass(frozen=True, slots=True, kw_only=True)
class JailIdentity:
    """Which jail calls: of which plugin, and where that lies."""

    plugin: str
    generation: int
    directory: Path
    scratch: Path


@dataclass(frozen=True, slots=True)
class CallContext:
    """One call: what it is, until when it must be done (``time.monotonic``), and where its work is counted."""

    method: str
    deadline: float
    count: Callable[[str, int], None]
    """Adds to what the plugin has used, like ``("rows", 20)``."""


class ServiceSession(Protocol):
    """What a service keeps for one jail process; closed when that ends, and whatever it had open is undone."""

    async def call(self, method: str, args: Sequence[Any], call: CallContext) -> Any:
        """Do what the jail wants, and return what can be said in a frame.

        Raises:
            BrokerError: it is refused, or went wrong.
        """

    async def close(self) -> None:
        """The jail is gone."""


class Service(Protocol):
    """A family of calls."""

    family: str
    """``db`` serves all methods ``db.*``."""
    inside: str | None
    """What runs in the jail before the plugin is imported, as ``module:function``."""
    permissions: tuple[str, ...]
    """One of these must be granted before anything is answered; none: it is for all."""

    def describe(self, jail: JailIdentity, grants: Grants) -> Mapping[str, Any]:
        """Return what its part in the jail must know from the start; goes with the spec, so it is JSON-able."""

    def open(self, jail: JailIdentity, grants: Grants) -> ServiceSession:
        """Return what answers the calls of one jail process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerLimits:
    """What one jail may ask of the host. Durations are in seconds."""

    concurrent: int = 16
    """Calls that are carried out at once; others wait."""
    waiting: int = 256
    """Calls that are carried out or wait; others are refused."""
    call_time: float = 15.0
    per_minute: Mapping[str, int | None] = field(default_factory=lambda: PER_MINUTE)
    """What may be used in a minute, by what is counted: ``<family>.calls``, ``<family>.milliseconds``, …; None: any.

    ``<plugin>.<family>.calls`` is for that plugin alone.
    """

    def per_minute_of(self, plugin: str) -> Mapping[str, int]:
        """Return what one plugin may use in a minute."""
        own = f"{plugin}."
        chosen = {name: allowed for name, allowed in self.per_minute.items() if name.count(".") == 1}
        for name, allowed in self.per_minute.items():
            if name.startswith(own):
                chosen[name.removeprefix(own)] = allowed
        return {name: allowed for name, allowed in chosen.items() if allowed is not None}


class Meter:
    """Counts what one plugin uses, in all and in the present minute, and what of it is refused."""

    def __init__(
        self, per_minute: Mapping[str, int], clock: Callable[[], float] = time.monotonic, *, plugin: str = ""
    ) -> None:
        self.limits = per_minute
        self.total: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        """Calls that were not carried out, by the limit that they were beyond."""
        self._of_family: dict[str, list[tuple[str, int]]] = {}
        for name, allowed in per_minute.items():
            self._of_family.setdefault(name.partition(".")[0], []).append((name, allowed))
        self._minute: Counter[str] = Counter()
        self._clock = clock
        self._plugin = plugin
        self._began = clock()
        self._has_told = False

    @property
    def minute(self) -> Mapping[str, int]:
        """What was used in the present minute."""
        self._turn()
        return self._minute

    def add(self, name: str, amount: int) -> None:
        """Count something."""
        self._turn()
        self.total[name] += amount
        self._minute[name] += amount

    def check(self, family: str) -> None:
        """Refuse while the minute's share of the family is used up; the log says so once in that minute.

        Raises:
            BrokerError: it is.
        """
        self._turn()
        for name, allowed in self._of_family.get(family, ()):
            if self._minute[name] >= allowed:
                left = max(1, math.ceil(self._began + _MINUTE - self._clock()))
                self.refused[name] += 1
                self._tell(name, allowed, left)
                error = ShareUsedUpError(plugin=self._plugin, what=name, allowed=allowed, retry_after=left)
                raise BrokerError(ShareUsedUpError.__name__, str(error), **error.fields)

    def _tell(self, name: str, allowed: int, left: int) -> None:
        if not self._has_told:
            self._has_told = True
            _log.warning(
                "Plugin %s has used its %s %s of this minute: such calls are refused for %d s;"
                " COMMUNITY_CALLS=%s.%s=%d would allow more",
                self._plugin, f"{allowed:,}", name, left, self._plugin, name, 2 * allowed,
            )  # fmt: skip

    def _turn(self) -> None:
        now = self._clock()
        if now - self._began >= _MINUTE:
            self._began = now
            self._minute.clear()
            self._has_told = False


class Broker:
    """Answers the calls of one jail process, on one event loop.

    ``reply`` is given a call's number, whether it succeeded, and its value or ``{type, text}``. ``meter`` may be
    that of the plugin's former process, so that a restart gives no new share.
    """

    def __init__(
        self,
        jail: JailIdentity,
        grants: Grants,
        services: Iterable[Service],
        *,
        reply: Callable[[int, bool, Any], None],
        limits: BrokerLimits | None = None,
        meter: Meter | None = None,
    ) -> None:
        self._jail = jail
        self._grants = grants
        self._services = {service.family: service for service in services}
        self._reply = reply
        self._limits = limits or BrokerLimits()
        self.meter = meter or Meter(self._limits.per_minute_of(jail.plugin), plugin=jail.plugin)
        self._sessions: dict[str, ServiceSession] = {}
        self._turnstile = asyncio.Semaphore(self._limits.concurrent)
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._owed = 0.0

    def take(self, number: int, method: str, args: list[Any]) -> None:
        """Answer a call by and by."""
        if self._is_closed:
            return
        if len(self._tasks) >= self._limits.waiting:
            self.meter.refused["waiting"] += 1
            self._refuse(number, "TooManyCallsError", f"{self._limits.waiting} calls of this plugin are under way")
            return
        task = asyncio.create_task(self._answer(number, method, args), name=f"{method[:60]} for {self._jail.plugin}")
        self._tasks.add(task)
        task.add_done_callback(functools.partial(self._finish, number))

    async def close(self) -> None:
        """The jail is gone: stop what it has asked for, and undo what is open."""
        self._is_closed = True
        await self._undo()

    async def regrant(self, grants: Grants) -> None:
        """Let other grants count from now on; where that takes something away, all that is under way is undone."""
        before, self._grants = self._grants, grants
        if before.exceed(grants):
            await self._undo()

    async def _undo(self) -> None:
        sessions, self._sessions = self._sessions, {}  # who asks from here on gets new ones
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for family, session in sessions.items():
            try:
                await session.close()
            except Exception:  # noqa: BLE001 - the other sessions are closed whatever this one does
                _log.exception("the %s service could not clean up after plugin %r", family, self._jail.plugin)

    def _finish(self, number: int, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() and not self._is_closed:
            self._refuse(number, "NotGrantedError", "what was granted has changed meanwhile; ask again")

    async def _answer(self, number: int, method: str, args: list[Any]) -> None:
        try:
            async with self._turnstile:
                value = await self._call(method, args)
        except BrokerError as error:
            self._refuse(number, error.kind, str(error), error.fields)
        except TimeoutError:
            self._refuse(number, "CallTimeoutError", f"{method[:60]} took longer than {self._limits.call_time:g} s")
        except Exception:  # noqa: BLE001 - the plugin must not learn what, but get an answer
            _log.exception("%s of plugin %r failed", method[:60], self._jail.plugin)
            self._refuse(number, "HostError", "the host could not do that; its log says why")
        else:
            self._reply(number, True, value)

    def _refuse(self, number: int, kind: str, text: str, fields: Mapping[str, Any] = MappingProxyType({})) -> None:
        self._reply(number, False, {"type": kind, "text": text, **({"fields": dict(fields)} if fields else {})})

    async def _call(self, method: str, args: list[Any]) -> Any:
        family, _, name = method.partition(".")
        session = self._session(family, method)
        if name not in _ENDING:
            self.meter.check(family)

        def count(what: str, amount: int) -> None:
            self.meter.add(f"{family}.{what}", amount)

        count("calls", 1)
        started = time.monotonic()
        context = CallContext(name, started + self._limits.call_time, count)
        try:
            async with asyncio.timeout(self._limits.call_time):
                return await session.call(name, args, context)
        finally:
            self._owed += (time.monotonic() - started) * 1000  # most calls take less than one, and add up
            if self._owed >= 1:
                count("milliseconds", int(self._owed))
                self._owed %= 1

    def _session(self, family: str, method: str) -> ServiceSession:
        if (session := self._sessions.get(family)) is not None:
            return session
        service = self._services.get(family)
        if service is None:
            raise BrokerError("UnknownCallError", f"the host knows no {method[:60]!r}")
        if service.permissions and not any(map(self._grants.has, service.permissions)):
            wanted = " or ".join(map(repr, service.permissions))
            raise BrokerError("NotGrantedError", f"{method[:60]!r} needs the permission {wanted}, which is not granted")
        session = self._sessions[family] = service.open(self._jail, self._grants)
        return session
