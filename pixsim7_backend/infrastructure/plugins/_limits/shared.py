"""Counts that several processes share, as long as whatever keeps them answers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from .rate import Rate, Verdict

logger = logging.getLogger("pixsim7.plugins")

#: Seconds for which each process counts for itself after the shared counts failed.
PAUSE = 5.0


class RatesUnavailableError(Exception):
    """The shared counts cannot be asked now; the text says why."""


class SharedRates(Protocol):
    """Counts requests where all processes that serve the app see it."""

    async def take(self, plugin: str, client: str, rate: Rate) -> Verdict:
        """Count one request if it is within the rate, in one step that nothing comes between.

        A count belongs to the plugin, the client and the rate. It waits at most about a second.

        Raises:
            RatesUnavailableError: nothing could be counted.
        """


class SharedCounts:
    """Asks the shared counts, and leaves them alone for a while when they fail; the log has both changes.

    Args:
        rates: the shared counts.
        clock: seconds that never run backwards.
    """

    def __init__(self, rates: SharedRates, clock: Callable[[], float]) -> None:
        self._rates = rates
        self._clock = clock
        self._asks_again_at: float | None = None

    async def take(self, plugin: str, client: str, rate: Rate) -> Verdict | None:
        """Return the verdict, None while the shared counts do not answer."""
        if self._asks_again_at is not None:
            now = self._clock()
            if now < self._asks_again_at:
                return None
            self._asks_again_at = now + PAUSE  # one request tries, the others do not wait for it
        try:
            verdict = await self._rates.take(plugin, client, rate)
        except RatesUnavailableError as error:
            self._note_failure(error)
            return None
        if self._asks_again_at is not None:
            self._asks_again_at = None
            logger.info("Rate limits are shared with the other processes again")
        return verdict

    def _note_failure(self, error: RatesUnavailableError) -> None:
        if self._asks_again_at is None:
            logger.warning(
                "Rate limits hold for each process by itself, since the shared counts fail: %s;"
                " they are asked again every %g s",
                error,
                PAUSE,
            )
        self._asks_again_at = self._clock() + PAUSE
