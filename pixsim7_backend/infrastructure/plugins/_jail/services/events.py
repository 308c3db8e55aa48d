"""Events of one confined plugin: what it hears of the app, and what the app hears of it.

In the jail the plugin registers and emits as in process. It hears what was granted (``events:subscribe``), its own
events, and of the host's life what is harmless; nobody waits until it has heard. It emits its own events, which its
manifest declares, and those that were granted (``events:emit``), but never speaks for the host.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any

from pixsim7_backend.infrastructure.plugins._hooks.bus import HookBus, Subscription
from pixsim7_backend.infrastructure.plugins._jail.broker import (
    BrokerError,
    CallContext,
    Grants,
    JailIdentity,
    ServiceSession,
)
from pixsim7_backend.infrastructure.plugins._ledger.ownership import Entry, Owner, running_as, running_as_host
from pixsim7_backend.infrastructure.plugins.events import PluginEvents

from .delivery import Ask, Delivery, DeliveryLimits
from .payload import PayloadError, plain_payload

__all__ = ["JailEvents"]

logger = logging.getLogger("pixsim7.plugins.jail")

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}:[a-z][a-z0-9_-]{0,63}")
_MOST_NAMES = 200
_MOST_UNDER_WAY = 64
#: Spoken by the host alone; nothing but the id of a plugin goes with them.
_OF_THE_HOST = ("plugin:", "app:")
#: What stands before the colon in events of the host and the game: a manifest cannot make these a plugin's own.
_NOT_OWN = frozenset(each.partition(":")[0] for each in PluginEvents)
_SETTINGS_CHANGED = PluginEvents.PLUGIN_SETTINGS_CHANGED
#: Of its own settings every plugin may hear; of others' whoever was granted it.
_FOR_ALL = frozenset({"app:startup", "app:shutdown", _SETTINGS_CHANGED})

#: By which jail an event is being emitted here: it has run its own handlers of it.
_emitting: ContextVar[tuple[object, str] | None] = ContextVar("pixsim7_jail_emitting", default=None)


class JailEvents:
    """The events of one generation of a confined plugin; a service of its broker.

    Args:
        owner: of the generation; subscriptions are on its ledger, and heard in its app.
        bus: of the host.
        declared: the events of its manifest; those that are named like the game's are not its own for that.
        ask: asks its jail, starting it where it is not running.
        limits: what may wait for it.
    """

    family = "events"
    inside: str | None = "pixsim7_backend.infrastructure.plugins._jail.inside.events:install"
    permissions: tuple[str, ...] = ()

    def __init__(
        self, owner: Owner, bus: HookBus, declared: Collection[str], ask: Ask, *, limits: DeliveryLimits | None = None
    ) -> None:
        self.delivery = Delivery(owner.plugin, ask, limits or DeliveryLimits())
        self._owner = owner
        self._bus = bus
        self._own = frozenset(each for each in declared if each.partition(":")[0] not in _NOT_OWN)
        self._wanted: frozenset[str] = frozenset()
        self._hears_of_others = False
        """That the settings of other plugins have changed was granted."""
        self._session: _Session | None = None
        self._former: _Session | None = None
        """Of a process that is being stopped: what it says that it listens to counts no more."""
        self._is_unsaid = False
        """No process has said what the plugin listens to since it was made, or stopped for want of use."""
        self._subscriptions: dict[str, Subscription] = {}
        self._refused_payloads: set[str] = set()
        self._under_way: set[asyncio.Task[None]] = set()

    def describe(self, jail: JailIdentity, grants: Grants) -> Mapping[str, Any]:
        """Return nothing: what is granted is checked here."""
        return {}

    def open(self, jail: JailIdentity, grants: Grants) -> ServiceSession:
        """Return what answers one jail. What the former one listened to is heard until this one says what it does."""
        self.delivery.open()
        self._note_grants(grants)
        self._session = _Session(self, grants)
        return self._session

    # --- what the plugin hears ---------------------------------------------------------------------------

    def expect(self, names: Collection[str], grants: Grants) -> None:
        """Listen for a jail that nobody has needed yet: to these events, and to those that were granted by name."""
        self.delivery.open()
        self._note_grants(grants)
        named = {item for each in grants.granted if each.name == "events:subscribe" for item in each.items}
        known = sorted(name for name in {*names, *named} if _NAME.fullmatch(name) and self.may_hear(name, grants))
        self.follow(known[:_MOST_NAMES])
        self._is_unsaid = True

    def rest(self) -> None:
        """The jail is stopped until somebody needs it: what it listens to now is heard, and starts it again."""
        self._former, self._is_unsaid = self._session, True

    def confirm(self) -> None:
        """The plugin is enabled in a process: where that has not said what it listens to, it is nothing."""
        if self._is_unsaid:
            self._is_unsaid = False
            self.follow(())

    def said(self, session: _Session, names: Collection[str]) -> None:
        """A process says what it listens to."""
        if session is not self._former:
            self._is_unsaid = False
            self.follow(names)

    def follow(self, names: Collection[str]) -> None:
        """Listen to these events for the jail, and to no others."""
        self._wanted = frozenset(names)
        new = [name for name in sorted(self._wanted) if not self._is_heard(name)]
        if len(self._subscriptions.keys() | self._wanted) > _MOST_NAMES:
            raise BrokerError("TooManyEventsError", f"a plugin may listen to {_MOST_NAMES} different events")
        with running_as(self._owner, Entry.HOOK):
            for name in new:
                self._subscriptions[name] = self._bus.register(name, partial(self._hear, name))
        if not self._wanted:
            self.delivery.clear()

    def limit(self, grants: Grants) -> None:
        """Hear no more than this: what was granted has changed while the jail runs."""
        self._note_grants(grants)
        self._wanted = frozenset(name for name in self._wanted if self.may_hear(name, grants))

    def _note_grants(self, grants: Grants) -> None:
        self._hears_of_others = grants.allows("events:subscribe", _SETTINGS_CHANGED)

    def may_hear(self, name: str, grants: Grants) -> bool:
        """Tell whether the plugin may listen to an event."""
        return name in self._own or name in _FOR_ALL or grants.allows("events:subscribe", name)

    def _is_heard(self, name: str) -> bool:
        subscription = self._subscriptions.get(name)
        return subscription is not None and subscription.is_active

    def _hear(self, name: str, *args: Any, **kwargs: Any) -> None:
        if name not in self._wanted or _emitting.get() == (self, name):
            return
        if name == PluginEvents.APP_SHUTDOWN and self._is_unsaid:  # to be told of the end, none is started
            return
        if name == _SETTINGS_CHANGED and not self._hears_of_others and args[:1] != (self._owner.plugin,):
            return
        if name.startswith(_OF_THE_HOST):
            args, kwargs = tuple(each for each in args[:1] if isinstance(each, str)), {}
        try:
            payload = plain_payload(args, kwargs)
        except PayloadError as error:
            self._refuse_payload(name, error)
        else:
            self.delivery.put(name, *payload)

    def _refuse_payload(self, name: str, error: PayloadError) -> None:
        if name not in self._refused_payloads:
            self._refused_payloads.add(name)
            logger.warning("Event %s cannot be delivered to plugin %s: %s", name, self._owner.plugin, error)

    # --- what the plugin says ----------------------------------------------------------------------------

    def may_emit(self, name: str, grants: Grants) -> bool:
        """Tell whether the plugin may emit an event."""
        return not name.startswith(_OF_THE_HOST) and (name in self._own or grants.allows("events:emit", name))

    async def emit(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        """Run the host's handlers of an event, to their end even when the jail ends before."""
        if len(self._under_way) >= _MOST_UNDER_WAY:
            raise BrokerError("TooManyEventsError", f"{_MOST_UNDER_WAY} events of this plugin are under way")
        task = asyncio.create_task(self._announce(name, args, kwargs), name=f"{name} of {self._owner.plugin}")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        await asyncio.shield(task)

    async def _announce(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        _emitting.set((self, name))
        with running_as_host(self._owner.app):
            await self._bus.emit(name, *args, **kwargs)


class _Session:
    """The calls of one jail process."""

    def __init__(self, events: JailEvents, grants: Grants) -> None:
        self._events = events
        self._grants = grants

    async def call(self, method: str, args: Sequence[Any], call: CallContext) -> Any:
        """Answer ``subscribe(names)`` with the names that are not granted, or ``emit(name, args, kwargs)``."""
        match method, args:
            case "subscribe", [list() as names]:
                return self._subscribe(names)
            case "emit", [str() as name, list() as positional, dict() as named]:
                return await self._emit(name, positional, named)
        raise BrokerError("UnknownCallError", f"the host knows no 'events.{method[:40]}' with such arguments")

    async def close(self) -> None:
        """The plugin is still listening: its next process hears what waits."""

    def _subscribe(self, names: list[Any]) -> list[str]:
        if not all(isinstance(each, str) and _NAME.fullmatch(each) for each in names):
            raise BrokerError("ValueError", "events are named like 'quest:finished'")
        granted = {name for name in names if self._events.may_hear(name, self._grants)}
        self._events.said(self, granted)
        return sorted(set(names) - granted)

    async def _emit(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> None:
        if not _NAME.fullmatch(name):
            raise BrokerError("ValueError", f"{name[:60]!r} is not an event name; write it like 'quest:finished'")
        if not self._events.may_emit(name, self._grants):
            raise BrokerError("NotGrantedError", _refusal(name))
        try:
            args, kwargs, _ = plain_payload(args, kwargs)
        except PayloadError as error:
            raise BrokerError("PayloadError", f"the payload of {name} cannot leave the plugin: {error}") from error
        await self._events.emit(name, args, kwargs)


def _refusal(name: str) -> str:
    if name.startswith(_OF_THE_HOST):
        return f"{name} is announced by the host alone"
    return (
        f"{name} is no event that this plugin may emit; if it is its own, declare it in the manifest"
        f' (events=["{name}"]), else ask for it (permissions=["events:emit:{name}"]) and let the operator grant it'
    )
