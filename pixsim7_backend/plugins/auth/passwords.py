"""Argon2id hashing in worker threads, a few at a time, so that a flood of logins eats neither memory nor CPU."""

from __future__ import annotations

import base64
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from pixsim7_backend.problems import TooManyRequests

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HashCost:
    """What one hash costs; ``memory_kib`` is taken by each of the hashes that run at once."""

    time: int
    memory_kib: int
    lanes: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a password fits; ``rehashed`` is its hash at today's cost where the stored one is of another."""

    matches: bool
    rehashed: str | None = None


class PasswordHashing:
    """Hashes and verifies passwords: ``concurrency`` at once, while ``queue`` more may have a :meth:`place`."""

    def __init__(self, cost: HashCost, *, concurrency: int, queue: int) -> None:
        self._hasher = PasswordHasher(time_cost=cost.time, memory_cost=cost.memory_kib, parallelism=cost.lanes)
        self._decoy = _decoy(self._hasher, cost)
        self._slots = CapacityLimiter(concurrency)
        self._most = concurrency + queue
        self._present = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place among those whose password is hashed; taken before anything else is done for a request.

        Raises:
            TooManyRequests: all places are taken. So the answer to a flood costs nothing, and counts nowhere.
        """
        if self._present >= self._most:
            raise TooManyRequests("too many logins and registrations at once", retry_after=1)
        self._present += 1
        try:
            yield
        finally:
            self._present -= 1

    def hash_now(self, password: str) -> str:
        """Hash in the calling thread; for the command line."""
        return self._hasher.hash(password)

    def verify_now(self, stored: str | None, password: str) -> Verdict:
        """Verify in the calling thread; ``stored`` None (no such account) costs the same and never fits."""
        try:
            self._hasher.verify(self._decoy if stored is None else stored, password)
        except VerifyMismatchError:
            return Verdict(matches=False)
        except (InvalidHashError, VerificationError):
            _log.exception("a stored password hash is unreadable; its account cannot log in")
            return Verdict(matches=False)
        if stored is None:
            return Verdict(matches=False)
        return Verdict(matches=True, rehashed=self._renewed(stored, password))

    async def hash(self, password: str) -> str:
        """Hash a new password."""
        return await self._in_thread(lambda: self.hash_now(password))

    async def verify(self, stored: str | None, password: str) -> Verdict:
        """Verify a password in a worker thread, as :meth:`verify_now`."""
        return await self._in_thread(lambda: self.verify_now(stored, password))

    def _renewed(self, stored: str, password: str) -> str | None:
        return self._hasher.hash(password) if self._hasher.check_needs_rehash(stored) else None

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await to_thread.run_sync(work, limiter=self._slots)


def _decoy(hasher: PasswordHasher, cost: HashCost) -> str:
    """Return a hash of nothing known, at the same cost, to verify against where there is no account."""
    salt, digest = (
        base64.b64encode(os.urandom(length)).rstrip(b"=").decode() for length in (hasher.salt_len, hasher.hash_len)
    )
    return f"$argon2id$v=19$m={cost.memory_kib},t={cost.time},p={cost.lanes}${salt}${digest}"
