from __future__ import annotations

import threading
import time

import anyio
import pytest

from pixsim7_backend.plugins.auth.passwords import HashCost, PasswordHashing, Verdict
from pixsim7_backend.problems import TooManyRequests

pytestmark = pytest.mark.anyio

CHEAP = HashCost(time=1, memory_kib=8, lanes=1)


def hashing(cost: HashCost = CHEAP, *, concurrency: int = 2, queue: int = 100) -> PasswordHashing:
    return PasswordHashing(cost, concurrency=concurrency, queue=queue)


async def test_a_password_fits_its_own_hash_only() -> None:
    """Hashes are salted Argon2id strings at the cost that was set."""
    hasher = hashing()
    stored = await hasher.hash("correct horse")
    assert stored.startswith("$argon2id$v=19$m=8,t=1,p=1$")
    assert stored != await hasher.hash("correct horse")
    assert await hasher.verify(stored, "correct horse") == Verdict(matches=True)
    assert await hasher.verify(stored, "Correct horse") == Verdict(matches=False)


async def test_nobody_has_the_decoys_password() -> None:
    """Without an account verification runs all the same, and fails."""
    assert await hashing().verify(None, "") == Verdict(matches=False)


async def test_the_decoy_costs_what_a_hash_costs() -> None:
    """The work done for unknown names has the parameters of a real hash, by the numbers in the string."""
    hasher = hashing(HashCost(time=2, memory_kib=64, lanes=2))
    real, decoy = hasher.hash_now("some password"), hasher._decoy
    assert real.split("$")[1:4] == decoy.split("$")[1:4]
    assert [len(part) for part in real.split("$")] == [len(part) for part in decoy.split("$")]


async def test_a_hash_of_another_cost_is_renewed() -> None:
    """After the cost was changed, a right password comes with its new hash; a wrong one does not."""
    stored = hashing().hash_now("some password")
    dearer = hashing(HashCost(time=2, memory_kib=16, lanes=1))
    verdict = await dearer.verify(stored, "some password")
    assert verdict.matches
    assert verdict.rehashed is not None
    assert await dearer.verify(verdict.rehashed, "some password") == Verdict(matches=True)
    assert await dearer.verify(stored, "wrong") == Verdict(matches=False)


async def test_an_unreadable_hash_fits_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A broken row is a failed login and a line in the log, not a server error."""
    assert await hashing().verify("not a hash", "some password") == Verdict(matches=False)
    assert "unreadable" in caplog.text
    assert "some password" not in caplog.text


async def test_few_hashes_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ask, no more than the limit are in a thread; the rest wait without one."""
    hasher, lock, running, peak = hashing(concurrency=2), threading.Lock(), 0, 0

    def slow(password: str) -> str:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        time.sleep(0.005)
        with lock:
            running -= 1
        return password

    monkeypatch.setattr(hasher, "hash_now", slow)
    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(hasher.hash, str(number))
    assert peak == 2


async def test_a_flood_is_sent_away() -> None:
    """Who comes when all places are taken gets 429 with Retry-After at once; afterwards there is room again."""
    hasher = hashing(concurrency=1, queue=1)
    with hasher.place():
        with hasher.place(), pytest.raises(TooManyRequests) as caught, hasher.place():
            pytest.fail("a third place among two")
        assert caught.value.headers == {"Retry-After": "1"}
        with hasher.place():
            assert await hasher.verify(None, "x") == Verdict(matches=False)
