"""The collector is put off while code is imported, by whoever does that at the time, and never for long."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator

import pytest

from pixsim7_backend.infrastructure.plugins._code.pause import without_collections

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """The collector as it was, whatever happens in a test."""
    was_enabled = gc.isenabled()
    gc.enable()
    yield
    if not was_enabled:
        gc.disable()


async def test_it_is_off_inside_and_on_again_afterwards() -> None:
    """Also when the work inside fails or is broken off."""

    def fail(error: type[BaseException]) -> None:
        assert not gc.isenabled()
        raise error

    for error in (ValueError, asyncio.CancelledError):
        with pytest.raises(error), without_collections():
            fail(error)
        assert gc.isenabled()


async def test_the_last_one_turns_it_on_again() -> None:
    """Two apps, of which the first ends first: it stays off for the second."""
    first, second = without_collections(), without_collections()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not gc.isenabled()
    second.__exit__(None, None, None)
    assert gc.isenabled()


async def test_two_loops_in_two_threads_do_not_disturb_one_another() -> None:
    """Whoever ends in another thread does not turn it on for the one who is still inside."""
    is_inside, may_end = threading.Event(), threading.Event()

    async def other() -> None:
        with without_collections():
            is_inside.set()
            await asyncio.to_thread(may_end.wait)

    thread = threading.Thread(target=asyncio.run, args=(other(),))
    with without_collections():
        thread.start()
        await asyncio.to_thread(is_inside.wait)
    assert not gc.isenabled()
    may_end.set()
    await asyncio.to_thread(thread.join)
    assert gc.isenabled()


async def test_it_is_on_again_in_the_middle_of_what_takes_long() -> None:
    """An import that takes minutes does not do without it; whoever comes meanwhile begins anew."""
    with without_collections(0.01):
        async with asyncio.timeout(10):
            while not gc.isenabled():  # noqa: ASYNC110  # nothing else tells
                await asyncio.sleep(0.005)
        with without_collections():
            assert not gc.isenabled()
        assert gc.isenabled()


async def test_a_host_that_collects_by_itself_is_left_alone() -> None:
    """What was off before is off afterwards."""
    gc.disable()
    with without_collections():
        pass
    assert not gc.isenabled()
