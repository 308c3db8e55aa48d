"""Keeps an eye on running plugins: who blocks the loop, whose handlers fail, who fails too often."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, ExitStack

from ._hooks import HookBus
from ._inventory import Inventory
from ._metrics import PluginMetrics
from ._quarantine import Quarantine
from ._runner import Runner
from ._settings import PluginSettings
from ._stalls import StallWatch


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

    async def settle(self) -> None:
        """Wait until what a breaker decided is done."""
        if self.quarantine is not None:
            await self.quarantine.settle()
