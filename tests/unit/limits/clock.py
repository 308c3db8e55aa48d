"""A clock that a test turns."""

from __future__ import annotations


class Clock:
    """Nanoseconds, as ``time.monotonic_ns`` gives them."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    @property
    def seconds(self) -> float:
        return self.now / 1e9

    def forward(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)
