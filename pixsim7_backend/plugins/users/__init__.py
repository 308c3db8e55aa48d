"""Profiles, preferences and usage. What other plugins may use is in ``__all__``.

A plugin that uses up what is limited takes ``meter: Meter`` and calls ``meter.reserve(db, user.id,
Amounts(jobs=1))`` in the transaction that stores the thing, and ``meter.release`` where it is deleted.
"""

from __future__ import annotations

from .manifest import manifest, on_load, router
from .meter import Meter
from .rules import Amounts, Quota, Quotas, Usage
from .usage import UsageMeter

__all__ = ["manifest", "router", "on_load", "Meter", "UsageMeter", "Amounts", "Quota", "Quotas", "Usage"]
