"""Rates: so many requests per second, minute, hour or day. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pixsim7_backend.infrastructure.plugins.types import check_rate

_SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}


@dataclass(frozen=True, slots=True)
class Rate:
    """``count`` requests in every ``period`` seconds.

    A client that keeps to it in every stretch of that length is never refused, whether its requests
    come evenly or all at once. Over any stretch of ``w`` seconds at most
    ``count * (1 + w / period)`` are let through.

    >>> Rate.parse("100/minute")
    Rate(count=100, period=60)
    """

    count: int
    period: int

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Read ``"100/minute"``; raise ValueError, with a correct example, when it is none."""
        count, _, unit = check_rate(text).partition("/")
        return cls(int(count), _SECONDS[unit])

    @property
    def per_second(self) -> float:
        return self.count / self.period

    def __str__(self) -> str:
        return f"{self.count}/{next(unit for unit, seconds in _SECONDS.items() if seconds == self.period)}"


class Verdict(NamedTuple):
    """Whether a request is within its client's rate, and where the client stands then."""

    is_allowed: bool
    remaining: int
    """So many more would be let through now."""
    seconds: float
    """Until the next one is let through where none remains, else until the whole count is there again."""
