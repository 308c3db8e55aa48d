"""The ledger, ports, tasks and the leak report."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from pixsim7_backend.infrastructure.plugins import ports
from pixsim7_backend.infrastructure.plugins._ledger.ledger import Ledger, find_threads
from pixsim7_backend.infrastructure.plugins._ledger.ownership import AppKey, Entry, Owner, running_as, running_as_host
from pixsim7_backend.infrastructure.plugins._ledger.tasks import own_tasks
from pixsim7_backend.infrastructure.plugins.errors import PortTakenError

pytestmark = pytest.mark.anyio


def owner_of(plugin: str, app: AppKey, directory: str = "/nowhere/", generation: int = 1) -> Owner:
    return Owner(app, plugin, generation, plugin, directory)


def test_undo_runs_last_in_first_out_and_survives_an_undo_that_raises() -> None:
    """Every undo runs once; one that raises is a leak and stops no other."""
    ledger, done = Ledger(), list[str]()

    def broken() -> None:
        raise RuntimeError("stuck")

    ledger.add("route", "first", lambda: done.append("first"))
    ledger.add("route", "broken", broken)
    ledger.add("port", "last", lambda: done.append("last"))
    undone, leaks = ledger.undo()
    assert done == ["last", "first"]
    assert undone == ("port last", "route first")
    assert [str(leak) for leak in leaks] == ["route broken: undo raised RuntimeError: stuck"]
    assert ledger.undo() == ((), ())


def test_a_port_belongs_to_one_plugin_and_goes_with_it() -> None:
    """A second provider is refused by name; a newer generation takes over; the old one's undo does no harm."""
    app = AppKey()
    old, new, other = owner_of("media", app), owner_of("media", app, generation=2), owner_of("assets", app)
    with running_as(old, Entry.HOOK):
        ports.provide("media", "old")
    with running_as(other, Entry.HOOK):
        assert ports.get("media") == "old"
        with pytest.raises(PortTakenError, match="port 'media' is already provided by plugin 'media'"):
            ports.provide("media", "other")
    with running_as(new, Entry.HOOK):
        ports.provide("media", "new")
    old.ledger.undo()
    with running_as_host(app):
        assert ports.find("media") == "new"
    new.ledger.undo()
    with running_as_host(app):
        assert ports.find("media") is None
        with pytest.raises(LookupError, match="no plugin provides the port 'media'"):
            ports.get("media")


def test_ports_of_two_apps_do_not_meet() -> None:
    """What one app's plugin provides is invisible in another app."""
    one, other = AppKey("one"), AppKey("other")
    provider = owner_of("media", one)
    with running_as(provider, Entry.HOOK):
        ports.provide("media", "one")
    with running_as_host(other):
        assert ports.find("media") is None
    provider.ledger.undo()


async def test_plain_create_task_is_owned_cancelled_and_awaited() -> None:
    """The guide's own example: a task made in a hook is the plugin's and ends with it."""
    owner, release = owner_of("quests", AppKey()), own_tasks(asyncio.get_running_loop())
    cleaned: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            cleaned.append("yes")

    try:
        with running_as(owner, Entry.HOOK):
            task = asyncio.create_task(forever())
        await asyncio.sleep(0)
        assert owner.ledger.tasks == (task,)
        undone, leaks = await owner.ledger.cancel_tasks(5)
    finally:
        release()
    assert (cleaned, leaks, len(undone)) == (["yes"], (), 1)
    assert "forever" in undone[0]
    assert not owner.ledger.tasks


async def test_a_task_that_swallows_its_cancellation_is_reported_with_its_line() -> None:
    """The leak report names what would not die and where it waits."""
    owner, release = owner_of("quests", AppKey()), own_tasks(asyncio.get_running_loop())
    end = asyncio.Event()

    async def stubborn() -> None:
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue

    try:
        with running_as(owner, Entry.HOOK):
            task = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        _, (leak,) = await owner.ledger.cancel_tasks(0.05)
    finally:
        release()
        end.set()
    assert leak.kind == "task"
    assert "stubborn" in leak.name
    assert __file__ in leak.name
    await task


async def test_tasks_of_a_request_are_the_plugins_only_when_its_code_made_them() -> None:
    """What FastAPI or a client library starts to serve a request is not the plugin's to cancel."""
    here = str(Path(__file__).parent)
    mine, foreign = owner_of("mine", AppKey(), here), owner_of("foreign", AppKey(), "/elsewhere/")
    release = own_tasks(asyncio.get_running_loop())

    async def work() -> None: ...

    try:
        for owner in (mine, foreign):
            with running_as(owner, Entry.REQUEST):
                await asyncio.gather(asyncio.create_task(work()), asyncio.sleep(0))
        with running_as(mine, Entry.REQUEST):
            made = asyncio.create_task(asyncio.sleep(60))
        assert mine.ledger.tasks == (made,)
        with running_as(foreign, Entry.REQUEST):
            other = asyncio.create_task(asyncio.sleep(60))
        assert not foreign.ledger.tasks
        for task in (made, other):
            task.cancel()
    finally:
        release()


async def test_tasks_inherit_their_owner_through_tasks() -> None:
    """A task started by a plugin's task is the plugin's too."""
    owner, release = owner_of("quests", AppKey()), own_tasks(asyncio.get_running_loop())

    async def outer() -> None:
        await asyncio.create_task(asyncio.sleep(60))

    try:
        with running_as(owner, Entry.HOOK):
            started = asyncio.create_task(outer())
        await asyncio.sleep(0.01)
        assert len(owner.ledger.tasks) == 2
        await owner.ledger.cancel_tasks(5)
        assert started.cancelled()
    finally:
        release()


async def test_the_factory_chains_an_existing_one_and_restores_it() -> None:
    """Somebody else's task factory keeps seeing every task, and is there again after the last release."""
    loop = asyncio.get_running_loop()
    seen: list[Any] = []

    def theirs(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        seen.append(coro)
        return asyncio.Task(coro, loop=loop, **options)

    before = loop.get_task_factory()
    loop.set_task_factory(theirs)
    try:
        first, second = own_tasks(loop), own_tasks(loop)
        await asyncio.create_task(asyncio.sleep(0))
        assert len(seen) == 1
        first()
        assert loop.get_task_factory() is not theirs
        second()
        assert loop.get_task_factory() is theirs
    finally:
        loop.set_task_factory(before)


def test_threads_that_run_the_plugins_code_are_found() -> None:
    """A thread is named with function and line; other threads are not."""
    end = threading.Event()

    def plugin_work() -> None:
        end.wait(60)

    thread = threading.Thread(target=plugin_work, name="quest worker")
    thread.start()
    try:
        (leak,) = [leak for leak in find_threads(str(Path(__file__))) if leak.name == "quest worker"]
        assert "plugin_work" in leak.why
        assert find_threads("/nowhere/") == ()
    finally:
        end.set()
        thread.join()
