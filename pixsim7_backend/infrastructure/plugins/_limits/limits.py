"""The gates of one app's plugins."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol
from weakref import WeakSet

from pixsim7_backend.infrastructure.plugins.records import PluginRecord

from .gate import Gate
from .memory import MemoryRates
from .rate import Rate
from .settings import LimitSettings
from .shared import SharedCounts


class Gated(Protocol):
    """What serves a plugin behind a gate."""

    plugin_id: str
    gate: Gate | None


class PluginLimits:
    """Puts what serves a plugin behind the plugin's gate; what was counted stays as long as the rate does.

    Args:
        settings: what holds at first.
        records: what is known of the plugins.
        clock: nanoseconds that never run backwards.
    """

    def __init__(
        self,
        settings: LimitSettings,
        records: Mapping[str, PluginRecord],
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._records = records
        self._clock = clock
        self._rates: dict[str, MemoryRates] = {}
        self._gated: WeakSet[Gated] = WeakSet()
        self.change(settings)

    def change(self, settings: LimitSettings) -> None:
        """Let these settings hold from the next request on."""
        self.settings = settings
        self._shared = SharedCounts(settings.shared, lambda: self._clock() / 1e9) if settings.shared else None
        for each in tuple(self._gated):
            each.gate = self._gate_of(each.plugin_id)

    def guard(self, served: Mapping[str, Gated]) -> None:
        """Put what serves these plugins behind their gates, by what their manifests say now."""
        for plugin_id, each in served.items():
            each.gate = self._gate_of(plugin_id)
            self._gated.add(each)

    def forget(self, plugin_id: str) -> None:
        """The plugin is gone; another one of its id starts from nothing."""
        self._rates.pop(plugin_id, None)

    def _gate_of(self, plugin_id: str) -> Gate | None:
        record, settings = self._records[plugin_id], self.settings
        rate, room = settings.rate_of(record), settings.concurrency_of(record)
        if rate is None and room is None:
            return None
        rates = self._rates_of(plugin_id, rate) if rate is not None else None
        return Gate(plugin_id, rates=rates, room=room, shared=self._shared, find_client=settings.find_client)

    def _rates_of(self, plugin_id: str, rate: Rate) -> MemoryRates:
        found = self._rates.get(plugin_id)
        if found is None or found.rate != rate:
            found = self._rates[plugin_id] = MemoryRates(rate, self._clock)
        return found
