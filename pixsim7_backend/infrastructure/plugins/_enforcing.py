"""Whoever enforces grants beside the broker follows every decision; how far it got is kept for the records."""

from __future__ import annotations

import functools
import logging

from ._desired import Desired
from ._grants.enforcing import Enforcement, Enforcer
from ._interruption import off_loop

logger = logging.getLogger("pixsim7.plugins")


class Enforcing:
    """What was decided about the plugins of one app, as its enforcer carries it out; without one nothing happens."""

    def __init__(self, enforcer: Enforcer | None, desired: Desired) -> None:
        self._enforcer = enforcer
        self._desired = desired
        self._known: dict[str, tuple[Enforcement, ...]] = {}

    def of(self, plugin_id: str) -> tuple[Enforcement, ...]:
        """Return how far the last decision about a plugin got; nothing where nobody else enforces it."""
        return self._known.get(plugin_id, ())

    async def follow(self, plugin_id: str) -> None:
        """Let what is granted to a plugin now count there, too."""
        if self._enforcer is None:
            return
        grants = self._desired.grants(plugin_id)
        done = await off_loop(functools.partial(self._enforcer.enforce, plugin_id, grants))
        for each in set(done) - set(self.of(plugin_id)):
            if each.problem:
                logger.warning("Plugin %s: %s", plugin_id, each)
        self._known[plugin_id] = done
