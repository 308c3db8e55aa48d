"""Keeps an eye on running plugins: who blocks the loop, whose handlers fail, who fails too often."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack, nullcontext

from ._attribution.stalls import StallWatch
from ._hooks.bus import HookBus, Subscription
from ._inventory import Inventory
from ._metrics import PluginMetrics
from ._quarantine import Quarantine
from ._runner import Runner
from ._settings.platform import PluginSettings


class Supervision:
    """What watches the plugins of one app, from :meth:`start` to :meth:`stop`; which parts, the settings say."""

    def __init__(
        self,
        metrics: PluginMetrics,
        plugins: Inventory,
        runner: Runner,
        settings: PluginSettings,
        *,
        hooks: HookBus,
        change: Callable[[], AbstractAsyncContextManager[None]],
        is_started: Callable[[], bool],
    ) -> None:
        self.stall_watch: StallWatch | None = None
        self.quarantine: Quarantine | None = None
        self._metrics = metrics
        self._hooks = hooks
        self._journal = settings.startup_journal
        self._undo = ExitStack()
        if settings.stall_threshold is not None:
            self.stall_watch = StallWatch(
                settings.stall_threshold,
                find_culprit=metrics.find_culprit,
                on_stall=metrics.note_stall,
            )
        if settings.breaker is not None:
            self.quarantine = Quarantine(
                metrics, plugins, runner, settings.breaker, change=change, is_started=is_started
            )
        if settings.jails is not None and self.quarantine is not None:
            settings.jails.on_given_up = self.quarantine.accuse

    def start(self) -> None:
        """Watch, on the running loop."""
        self._undo.callback(self._hooks.watch_failures(self._metrics.note_failure))
        for part in (self.stall_watch, self.quarantine):
            if part is not None:
                part.start()
                self._undo.callback(part.stop)

    def stop(self) -> None:
        """Watch no more. Calling it again does nothing."""
        self._undo.close()

    def noting_handlers(self) -> AbstractContextManager[None]:
        """Until the end, let a start that dies in an event handler of a plugin remember whose it was."""

        def note(subscription: Subscription) -> AbstractContextManager[None]:
            owner = subscription.owner
            if owner is None or not self._metrics.is_ours(owner):
                return nullcontext()
            return self._journal.at(owner.plugin, f"told of {subscription.event}")

        return self._hooks.around_handlers(note)

    async def settle(self) -> None:
        """Wait until what a breaker decided is done."""
        if self.quarantine is not None:
            await self.quarantine.settle()
