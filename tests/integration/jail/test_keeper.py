"""The thread that keeps the zygote goes on, or is replaced, whatever goes wrong with one jail."""

from __future__ import annotations

import errno
import selectors
import socket
from pathlib import Path
from typing import Any

import pytest

from pixsim7_backend.infrastructure.plugins._jail.keeper import Keeper
from pixsim7_backend.infrastructure.plugins._jail.launcher import Launcher
from pixsim7_backend.infrastructure.plugins._jail.level import ConfinementLevel
from pixsim7_backend.infrastructure.plugins._jail.process import JailExit
from pixsim7_backend.infrastructure.plugins._jail.scratch import ScratchDirectories
from pixsim7_backend.infrastructure.plugins.testing import write_plugin

from .test_launcher import parent_of, spec_of


@pytest.fixture
def folder(open_dir: Path) -> Path:
    """A plugin."""
    return write_plugin(open_dir, "quest", "")


def test_a_keeper_that_fails_is_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes wrong in the thread that keeps the zygote, nobody waits for it in vain: all of it starts anew."""
    launcher = Launcher()
    try:
        former = launcher.spawn(spec_of(folder))
        zygote = parent_of(former.pid)
        failing = iter([True])

        def take_report(keeper: Keeper, launch: Any) -> None:
            if next(failing, False):
                raise RuntimeError("nobody thought of that")
            take(keeper, launch)

        take = Keeper._take_report
        monkeypatch.setattr(Keeper, "_take_report", take_report)
        process = launcher.spawn(spec_of(folder))
        assert parent_of(process.pid) != zygote
        assert former.wait(20) == JailExit(code=None)
        assert "nobody thought of that" in caplog.text
        former.close()
        process.close()
    finally:
        launcher.close()


def test_what_ends_is_not_looked_at_any_more() -> None:
    """Of what is ready at once, the first may be the end of the second: a jail that has ended before it was read."""
    keeper = Keeper(preload=(), floor=ConfinementLevel.LIMITS)
    ends = [socket.socketpair(), socket.socketpair()]
    for here, there in ends:
        keeper._selector.register(here, selectors.EVENT_READ)
        there.close()
    keys = {key.fileobj: key for key, _ in keeper._selector.select()}
    assert len(keys) == 2
    (ended, _), (open_, _) = ends
    keeper._selector.unregister(ended)
    ended.close()
    assert not keeper._is_watched(keys[ended])
    assert keeper._is_watched(keys[open_])
    open_.close()
    keeper.forget()


def test_what_cannot_be_given_back_is_nobody_elses_trouble(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a scratch directory cannot be removed, its jail has ended all the same, and others start."""
    launcher = Launcher()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(ScratchDirectories, "remove", _refuse_to_remove)
            process = launcher.spawn(spec_of(folder))
            zygote = parent_of(process.pid)
            process.close()
            assert process.wait(20) is not None
        assert "What the jail of plugin quest had could not be removed" in caplog.text
        again = launcher.spawn(spec_of(folder))
        assert parent_of(again.pid) == zygote
        again.close()
    finally:
        launcher.close()


def _refuse_to_remove(_directories: ScratchDirectories, path: Path) -> None:
    raise OSError(errno.ENOTEMPTY, "it is not empty", str(path))
