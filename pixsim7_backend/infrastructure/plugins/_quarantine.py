"""Takes plugins out of service that do too much harm, and tries them again: the breaker's word made true."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from functools import partial
from typing import Any

from fastapi import HTTPException

from ._attribution.breaker import Breaker, BreakerSettings, BreakerState, Totals
from ._dispatch import PluginMount, build_stand_in
from ._inventory import Inventory
from ._metrics import PluginMetrics
from ._runner import Runner
from .errors import QuarantinedError
from .states import PluginState

logger = logging.getLogger("pixsim7.plugins")

#: Looks at every plugin per window.
_LOOKS = 30
#: Stands for no plugin where work under way is kept by plugin.
_DISMISSAL = ""


class Quarantine:
    """One breaker per plugin, looked at a few dozen times per window and whenever something goes wrong.

    A plugin that is required, or that an enabled required one needs, is only reported.

    Args:
        change: enters the manager's lock; a plugin is stopped or started inside only.
        is_started: whether the app serves; before and after, nothing is decided.
        clock: seconds that never run backwards.
    """

    def __init__(
        self,
        metrics: PluginMetrics,
        plugins: Inventory,
        runner: Runner,
        settings: BreakerSettings,
        *,
        change: Callable[[], AbstractAsyncContextManager[None]],
        is_started: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.breakers: dict[str, Breaker] = {}
        self._metrics = metrics
        self._plugins = plugins
        self._runner = runner
        self._settings = settings
        self._change = change
        self._is_started = is_started
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: set[str] = set()
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._refused: dict[str, str] = {}

    def start(self) -> None:
        """Look at the plugins from now on, on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._metrics.on_trouble = self._look_soon
        self._tick()

    def stop(self) -> None:
        """Look no more. Calling it again does nothing."""
        self._metrics.on_trouble = lambda _: None
        if self._timer is not None:
            self._timer.cancel()
        for task in self._busy.values():
            task.cancel()
        self._loop = self._timer = None

    async def settle(self) -> None:
        """Wait until what was decided is done."""
        while self._waiting or self._busy:
            await (asyncio.wait(set(self._busy.values())) if self._busy else asyncio.sleep(0))

    # --- looking ------------------------------------------------------------------------------------

    def _tick(self) -> None:
        if self._loop is not None:
            self._timer = self._loop.call_later(self._settings.window / _LOOKS, self._tick, context=Context())
            for plugin_id in tuple(self._plugins.records):
                self.look(plugin_id)
            if self._is_started() and _DISMISSAL not in self._busy and self._idle_stand_ins():
                self._begin(_DISMISSAL, self._dismiss())

    def _look_soon(self, plugin_id: str) -> None:
        """Look once the code that failed has returned; as nobody's code, since it may be inside a change."""
        if self._loop is not None and plugin_id not in self._waiting:
            self._waiting.add(plugin_id)
            self._loop.call_soon(self._look_now, plugin_id, context=Context())

    def _look_now(self, plugin_id: str) -> None:
        self._waiting.discard(plugin_id)
        self.look(plugin_id)

    def look(self, plugin_id: str) -> None:
        """Let the plugin's breaker see what happened, and begin what it says."""
        if plugin_id in self._busy or not self._is_started():
            return
        record, now = self._plugins.records[plugin_id], self._clock()
        if record.state is PluginState.REMOVED:
            self.breakers.pop(plugin_id, None)
        elif record.state is PluginState.ENABLED:
            self._watch(plugin_id, now, self._metrics.totals_of(plugin_id))
        elif self._is_quarantined(plugin_id):
            breaker = self.breakers.get(plugin_id)
            if breaker is not None and not breaker.remaining(now):
                self._begin(plugin_id, self._try_again(plugin_id, breaker))

    def _watch(self, plugin_id: str, now: float, totals: Totals) -> None:
        breaker = self.breakers.get(plugin_id)
        if breaker is None:
            breaker = self.breakers[plugin_id] = Breaker(self._settings, now)
        if breaker.state is BreakerState.OPEN:  # somebody started it
            breaker.begin_trial(now)
        recent = breaker.observe(now, totals, self._plugins.generations[plugin_id].mount.endpoints)
        if recent is None:
            return
        error = self._accuse(plugin_id, breaker, str(recent), window=self._settings.window)
        needs_it = self._required_by(plugin_id)
        if needs_it is not None:
            breaker.begin_trial(now, totals)
            why = "it is required" if needs_it == plugin_id else f"{needs_it!r}, which is required, needs it"
            logger.error("Plugin %s serves on, since %s; else it would stop: %s", plugin_id, why, error)
        else:
            self._begin(plugin_id, self._take_out(plugin_id, error))

    def accuse(self, plugin_id: str, evidence: str) -> None:
        """Take a plugin out of service for what was seen elsewhere, like a jail that ends again and again."""
        record = self._plugins.records.get(plugin_id)
        if self._loop is None or plugin_id in self._busy or record is None or record.state is not PluginState.ENABLED:
            return
        now = self._clock()
        breaker = self.breakers.setdefault(plugin_id, Breaker(self._settings, now))
        breaker.trip(now)
        self._begin(plugin_id, self._take_out(plugin_id, self._accuse(plugin_id, breaker, evidence)))

    def _accuse(
        self, plugin_id: str, breaker: Breaker, evidence: str, *, window: float | None = None
    ) -> QuarantinedError:
        return QuarantinedError(
            plugin=plugin_id,
            evidence=evidence,
            window=window,
            last_fault=self._metrics.last_fault_of(plugin_id),
            pause=breaker.pause,
            trips=breaker.trips,
        )

    def _required_by(self, plugin_id: str) -> str | None:
        """Return the required plugin that would stop with this one, which may be itself."""
        for each in (plugin_id, *self._plugins.plan.dependants_of(plugin_id, transitive=True)):
            record = self._plugins.records[each]
            is_required = record.manifest is not None and record.manifest.required and record.source.is_trusted
            if is_required and record.state is PluginState.ENABLED:
                return each
        return None

    # --- acting -------------------------------------------------------------------------------------

    def _begin(self, plugin_id: str, work: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None, "start comes first"
        task = self._busy[plugin_id] = self._loop.create_task(work, context=Context(), name=f"quarantine {plugin_id}")
        task.add_done_callback(partial(self._end, plugin_id))

    def _end(self, plugin_id: str, task: asyncio.Task[None]) -> None:
        self._busy.pop(plugin_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("Quarantine of %s failed", plugin_id, exc_info=error)

    async def _take_out(self, plugin_id: str, error: QuarantinedError) -> None:
        """Stop the plugin and what needs it; their routes answer 503 meanwhile."""
        plugins, breaker = self._plugins, self.breakers[plugin_id]
        breaker.rest(self._metrics.totals_of(plugin_id))
        async with self._change():
            if not self._is_started() or plugins.records[plugin_id].state is not PluginState.ENABLED:
                return
            plugins.errors[plugin_id] = error
            change = plugins.make_change(plugins.make_plan(), asked=plugin_id)
            for each in change.stop:
                self._runner.stand_ins[each] = self._stand_in(each, plugin_id)
            self._refused |= dict.fromkeys(change.stop, plugin_id)
            logger.error("%s", error)
            await self._runner.apply(change)
            breaker.rest(self._metrics.totals_of(plugin_id))

    async def _try_again(self, plugin_id: str, breaker: Breaker) -> None:
        """Start the plugin and what waits for it; one that does not start has failed its trial."""
        plugins = self._plugins
        async with self._change():
            if not self._is_started() or not self._is_quarantined(plugin_id):
                return
            logger.info("Trying quarantined plugin %s again", plugin_id)
            plugins.errors.pop(plugin_id, None)
            await self._runner.apply(plugins.make_change(plugins.make_plan(), asked=plugin_id))
            record, now = plugins.records[plugin_id], self._clock()
            if record.state is PluginState.ENABLED:
                breaker.begin_trial(now, self._metrics.totals_of(plugin_id))
            elif record.state is PluginState.FAILED:
                breaker.trip(now)
                plugins.errors[plugin_id] = self._accuse(plugin_id, breaker, f"it did not start again: {record.reason}")
                plugins.adopt(plugins.make_plan())

    # --- answering meanwhile ------------------------------------------------------------------------

    def _is_quarantined(self, plugin_id: str) -> bool:
        reason = self._plugins.records[plugin_id].reason
        return isinstance(reason, QuarantinedError) and reason.plugin == plugin_id

    def _stand_in(self, plugin_id: str, culprit: str) -> PluginMount:
        """Return what answers in the plugin's place as long as ``culprit`` is out of service."""
        who = f"plugin {culprit!r} is out of service after failing too often"
        detail = who if plugin_id == culprit else f"plugin {plugin_id!r} is out of service, since {who}"

        def refusal() -> HTTPException:
            breaker = self.breakers.get(culprit)
            seconds = math.ceil(breaker.remaining(self._clock())) if breaker else 0
            return HTTPException(503, detail, {"Retry-After": str(max(1, seconds))})

        return build_stand_in(self._plugins.generations[plugin_id].mount, refusal)

    def _idle_stand_ins(self) -> list[str]:
        """Return those whose plugin serves again, or no longer waits for the culprit."""
        records = self._plugins.records
        return [
            each
            for each, culprit in self._refused.items()
            if records[each].state not in (PluginState.FAILED, PluginState.BLOCKED) or not self._is_quarantined(culprit)
        ]

    async def _dismiss(self) -> None:
        """Let go of idle stand-ins; between two changes, since inside one a plugin may be about to start."""
        async with self._change():
            for each in self._idle_stand_ins():
                del self._refused[each]
                self._runner.stand_ins.pop(each, None)
            if self._is_started():
                self._runner.publish()
