"""Shared counts that come and go."""

from __future__ import annotations

import logging

import pytest

from pixsim7_backend.infrastructure.plugins import Rate, RatesUnavailableError, Verdict
from pixsim7_backend.infrastructure.plugins._limits.shared import PAUSE, SharedCounts
from tests.unit.limits.clock import Clock

pytestmark = pytest.mark.anyio
RATE = Rate.parse("5/minute")
FINE = Verdict(True, 4, 1.0)


class Store:
    """Answers as long as it is up."""

    def __init__(self) -> None:
        self.is_up = True
        self.asked = 0

    async def take(self, plugin: str, client: str, rate: Rate) -> Verdict:
        self.asked += 1
        if not self.is_up:
            raise RatesUnavailableError("it is away")
        return FINE


async def test_a_store_that_fails_is_left_alone_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    """Going and coming back is one line each; in between one request in five seconds tries."""
    caplog.set_level(logging.INFO, "pixsim7.plugins")
    store, clock = Store(), Clock()
    counts = SharedCounts(store, lambda: clock.seconds)
    assert await counts.take("a", "b", RATE) == FINE
    store.is_up = False
    for _ in range(100):
        assert await counts.take("a", "b", RATE) is None
    assert store.asked == 2
    clock.forward(PAUSE)
    for _ in range(100):
        assert await counts.take("a", "b", RATE) is None
    assert store.asked == 3
    store.is_up = True
    assert await counts.take("a", "b", RATE) is None
    clock.forward(PAUSE)
    assert await counts.take("a", "b", RATE) == FINE
    assert await counts.take("a", "b", RATE) == FINE
    assert caplog.messages == [
        (
            "Rate limits hold for each process by itself, since the shared counts fail: it is away;"
            " they are asked again every 5 s"
        ),
        "Rate limits are shared with the other processes again",
    ]
