"""What every plugin of an app has done, read from where it is counted."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any
from weakref import WeakSet

from ._attribution.breaker import Totals
from ._attribution.culprit import Culprit, Turn, find_culprit
from ._attribution.figures import Latency, PluginFigures, RequestCounts, Stall
from ._attribution.prometheus import render_prometheus
from ._dispatch import PluginMount
from ._hooks.bus import HandlerFailure, HandlerTimeoutError, HookBus
from ._inventory import Inventory
from ._ledger.ownership import AppKey, Owner, Running, running
from .errors import PluginNotFoundError
from .states import PluginState
from .types import normalize_plugin_id


@dataclass(slots=True)
class _Counts:
    """Everything that is counted of one plugin, over its generations."""

    requests: RequestCounts = field(default_factory=RequestCounts)
    mounts: WeakSet[PluginMount] = field(default_factory=WeakSet)
    handler_failures: int = 0
    handler_timeouts: int = 0
    stalls: int = 0
    stalled_seconds: float = 0.0


class PluginMetrics:
    """The figures of one app's plugins. They survive reloads; a plugin that is removed is forgotten.

    ``on_trouble`` is called (on the loop) with the id of a plugin of which something went wrong.
    """

    def __init__(self, plugins: Inventory, key: AppKey, hooks: HookBus) -> None:
        self.on_trouble: Callable[[str], None] = lambda _: None
        self.stalls: deque[Stall] = deque(maxlen=100)
        """The last times that the event loop stood still, the host's own fault or a plugin's."""
        self._plugins = plugins
        self._key = key
        self._hooks = hooks
        self._counts: dict[str, _Counts] = {}
        self._entries = {
            PluginMount.serve.__code__: self._turn_of_request,
            HookBus.emit.__code__: self._turn_of_handler,
            asyncio.Handle._run.__code__: self._turn_of_callback,
        }

    # --- reading ------------------------------------------------------------------------------------

    def of(self, plugin_id: str) -> PluginFigures:
        """Return the figures of one plugin; raise PluginNotFoundError when there is no such plugin."""
        wanted = normalize_plugin_id(plugin_id)
        record = self._plugins.records.get(wanted)
        if record is None or record.state is PluginState.REMOVED:
            raise PluginNotFoundError(plugin=wanted)
        return self._figures(wanted, self._subscriptions(), self._memory())

    def __iter__(self) -> Iterator[PluginFigures]:
        subscriptions, memory = self._subscriptions(), self._memory()
        for plugin_id, record in sorted(self._plugins.records.items()):
            if record.state is not PluginState.REMOVED:
                yield self._figures(plugin_id, subscriptions, memory)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the figures of all plugins, by id, as JSON-able values."""
        return [each.to_json() for each in self]

    def render_prometheus(self) -> str:
        """Return the figures of all plugins as text for Prometheus to scrape."""
        return render_prometheus(self)

    def totals_of(self, plugin_id: str) -> Totals:
        """Return what the plugin's breaker looks at: an answer of 503 blames somebody else."""
        counts = self._counts.get(plugin_id)
        if counts is None:
            return Totals()
        requests = counts.requests
        return Totals(
            requests=requests.requests,
            faults=dict(requests.faults),
            timeouts=counts.handler_timeouts,
            stalled=counts.stalled_seconds,
        )

    def last_fault_of(self, plugin_id: str) -> str:
        """Return the last thing of the plugin that went wrong, with file and line where they are known."""
        counts = self._counts.get(plugin_id)
        return counts.requests.last_fault if counts else ""

    def _figures(self, plugin_id: str, subscriptions: Counter[str], memory: Mapping[str, int] | None) -> PluginFigures:
        counts = self._counts.get(plugin_id) or _Counts()
        requests = counts.requests
        generation = self._plugins.generations.get(plugin_id)
        return PluginFigures(
            plugin=plugin_id,
            requests=requests.requests,
            errors=requests.errors,
            answers={f"{digit}xx": count for digit, count in enumerate(requests.answers) if count},
            refused=dict(requests.refused),
            unanswered=requests.unanswered,
            websockets=requests.websockets,
            in_flight=sum(mount.in_flight for mount in tuple(counts.mounts)),
            latency=Latency(counts=tuple(requests.buckets), sum=requests.latency_sum),
            loop_seconds=requests.loop_seconds,
            stalls=counts.stalls,
            stalled_seconds=counts.stalled_seconds,
            handler_failures=counts.handler_failures,
            handler_timeouts=counts.handler_timeouts,
            tasks=len(generation.owner.ledger.tasks) if generation else 0,
            subscriptions=subscriptions[plugin_id],
            memory_bytes=memory.get(plugin_id, 0) if memory is not None else None,
            confined=generation.read_figures() if generation else None,
        )

    def _subscriptions(self) -> Counter[str]:
        return Counter(
            each.owner.plugin
            for each in self._hooks.iter_subscriptions()
            if each.owner is not None and each.owner.app is self._key
        )

    def _memory(self) -> Mapping[str, int] | None:
        """Sum what tracemalloc saw, by the directory of the line that took it; slow, and only while it traces."""
        if not tracemalloc.is_tracing():
            return None
        found: Counter[str] = Counter()
        directories = self._directories()
        for statistic in tracemalloc.take_snapshot().statistics("filename"):
            file = statistic.traceback[0].filename
            plugin = next((each for directory, each in directories.items() if file.startswith(directory)), None)
            if plugin is not None:
                found[plugin] += statistic.size
        return found

    # --- counting -----------------------------------------------------------------------------------

    def watch(self, mounts: Mapping[str, PluginMount]) -> None:
        """Let these mounts count for their plugins; those that served before them go on counting."""
        for plugin_id, mount in mounts.items():
            counts = self._counts.get(plugin_id)
            if counts is None:
                counts = self._counts[plugin_id] = _Counts()
                counts.requests.on_fault = partial(self._report, plugin_id)
            if mount.counts is not counts.requests:
                mount.counts = counts.requests
                counts.mounts.add(mount)

    def _report(self, plugin_id: str) -> None:
        self.on_trouble(plugin_id)

    def forget(self, plugin_id: str) -> None:
        """The plugin is gone; another one of its id starts from nothing."""
        self._counts.pop(plugin_id, None)

    def is_ours(self, owner: Owner) -> bool:
        """Tell whether the owner is a plugin of this app."""
        return owner.app is self._key

    def note_failure(self, owner: Owner | None, failure: HandlerFailure) -> None:
        """Count an event handler that failed."""
        counts = self._counts.get(owner.plugin) if owner is not None and self.is_ours(owner) else None
        if owner is None or counts is None:
            return
        counts.handler_failures += 1
        if isinstance(failure.error, HandlerTimeoutError):
            counts.handler_timeouts += 1
            counts.requests.last_fault = f"{failure.handler}: {failure.error}"
        else:
            counts.requests.note_fault(failure.error, owner.directory)
            return
        self.on_trouble(owner.plugin)

    def note_stall(self, stall: Stall) -> None:
        """Count a time that the event loop stood still."""
        self.stalls.append(stall)
        counts = self._counts.get(stall.plugin) if stall.plugin is not None else None
        if stall.plugin is None or counts is None:
            return
        counts.stalls += 1
        counts.stalled_seconds += stall.seconds
        counts.requests.last_fault = str(stall)
        self.on_trouble(stall.plugin)

    # --- whose code it is ---------------------------------------------------------------------------

    def find_culprit(self, frame: FrameType) -> Culprit:
        """Return who is to answer for what the loop's thread does; safe from any thread while the loop stands still."""
        return find_culprit(frame, self._directories(), self._entries, self._find_task_owner)

    def _directories(self) -> Mapping[str, str]:
        return {f"{record.source.path}/": record.id for record in tuple(self._plugins.records.values())}

    def _turn_of(self, owner: Owner | None, called: object = None) -> Turn:
        if owner is None or not self.is_ours(owner):
            return Turn(None)
        code = getattr(called, "__code__", None)
        return Turn(owner.plugin, code if code is not None and code.co_filename.startswith(owner.directory) else None)

    def _turn_of_request(self, frame: FrameType) -> Turn:
        return self._turn_of(frame.f_locals["self"].owner, frame.f_locals["scope"].get("endpoint"))

    def _turn_of_handler(self, frame: FrameType) -> Turn | None:
        subscription = frame.f_locals.get("subscription")
        return self._turn_of(subscription.owner, subscription.handler) if subscription is not None else None

    def _turn_of_callback(self, frame: FrameType) -> Turn:
        """Tell from the context that a task or a callback of the loop runs in."""
        now: Running | None = frame.f_locals["self"]._context.get(running)
        return self._turn_of(now.owner if now is not None else None)

    def _find_task_owner(self) -> str | None:
        loop = self._key.loop
        task = asyncio.current_task(loop) if loop is not None else None
        for generation in tuple(self._plugins.generations.values()):
            if task is not None and task in generation.owner.ledger.tasks:
                return generation.plugin
        return None
