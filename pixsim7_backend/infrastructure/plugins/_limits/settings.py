"""How much clients may ask of which plugin: the operator's word, else the manifest's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pixsim7_backend.infrastructure.plugins.records import PluginRecord

from .client import FindClient
from .rate import Rate
from .shared import SharedRates


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """What holds for each plugin; ids are normalised."""

    rates: Mapping[str, Rate | None] = field(default_factory=dict)
    """The rate of some plugins, whatever their manifest says; None: no limit."""
    community_rate: Rate | None = None
    """What one client may do to a community plugin that has no rate of its own, or a higher one."""
    concurrency: Mapping[str, int | None] = field(default_factory=dict)
    """How many requests some plugins serve at once in one process; None: any number."""
    community_concurrency: int | None = 64
    """The same for other community plugins; trusted ones serve any number."""
    shared: SharedRates | None = None
    """Counts for all processes; None: each counts for itself."""
    find_client: FindClient | None = None
    """Tells whose request it is; None: only its address counts, as it does where this cannot tell."""

    def rate_of(self, record: PluginRecord) -> Rate | None:
        """Return what one client may do to the plugin."""
        if record.id in self.rates:
            return self.rates[record.id]
        claimed = record.manifest.rate_limit if record.manifest else ""
        own = Rate.parse(claimed) if claimed else None
        if record.source.is_trusted or self.community_rate is None:
            return own
        return min(own or self.community_rate, self.community_rate, key=lambda rate: rate.per_second)

    def concurrency_of(self, record: PluginRecord) -> int | None:
        """Return how many requests the plugin serves at once in one process."""
        default = None if record.source.is_trusted else self.community_concurrency
        return self.concurrency.get(record.id, default)
