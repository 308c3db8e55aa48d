"""Scratch directories: made, measured and removed, whatever a stranger puts into them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from pixsim7_backend.infrastructure.plugins._jail import scratch as module
from pixsim7_backend.infrastructure.plugins._jail.scratch import TOO_MUCH, ScratchDirectories, measure


@pytest.fixture
def directories(tmp_path: Path) -> ScratchDirectories:
    """Scratch directories below the test's own."""
    return ScratchDirectories(tmp_path)


def _nest(directory: Path, depth: int) -> None:
    """Make directories in one another, deeper than a path can say, as a program can with relative paths."""
    descriptor = os.open(directory, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)


def test_nobody_else_can_enter(directories: ScratchDirectories) -> None:
    """A scratch directory is its user's alone; the one that they lie in can be passed, not listed."""
    path = directories.make("quest", None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o711
    assert path.name.startswith("quest-")
    directories.close()
    assert not path.parent.exists()


def test_names_that_a_stranger_took_are_in_nobodys_way(directories: ScratchDirectories) -> None:
    """What is moved while all is removed gets names that nobody could know."""
    path = directories.make("quest", None)
    for number in range(50):
        (path / f".removed-{number}").write_text("mine")
        (path / f"{number}" / "inner" / "innermost").mkdir(parents=True)
    directories.remove(path)
    assert not path.exists()
    directories.close()


def test_what_is_written_is_measured(directories: ScratchDirectories) -> None:
    """The size is what the disk holds, the entries are all of them; links lead nowhere."""
    path = directories.make("quest", None)
    (path / "sub").mkdir()
    (path / "sub" / "file").write_bytes(b"x" * 100_000)
    (path / "link").symlink_to("/")
    with (path / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 30)
    use = measure(str(path))
    assert use.entries == 4
    assert 100_000 <= use.size < 200_000
    directories.close()


def test_a_directory_that_cannot_be_measured_is_too_large(directories: ScratchDirectories) -> None:
    """Too many entries, and nesting that no path can name, count as too much."""
    path = directories.make("quest", None)
    for number in range(6):
        (path / str(number)).touch()
    assert measure(str(path), most_entries=5) == TOO_MUCH
    assert measure(str(path), most_entries=6).entries == 6
    _nest(path, 2500)
    assert measure(str(path)) == TOO_MUCH
    directories.close()


def test_deep_nesting_is_removed(directories: ScratchDirectories) -> None:
    """Directories nested beyond any recursion and any path are removed, closed ones too."""
    path = directories.make("quest", None)
    _nest(path, 2500)
    (path / "closed" / "inner").mkdir(parents=True)
    (path / "closed" / "inner" / "file").touch()
    (path / "closed").chmod(0)
    outside = path.parent.parent / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (path / "link").symlink_to(outside)
    directories.remove(path)
    directories.remove(path)
    assert not path.exists()
    assert (outside / "kept").exists()
    directories.close()


def test_what_a_killed_host_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next process removes the directories whose process is gone, and leaves those of the living alone."""
    monkeypatch.setattr(module, "_FRESH", -1.0)
    living, dead = ScratchDirectories(tmp_path), ScratchDirectories(tmp_path)
    kept, left = living.make("a", None), dead.make("b", None)
    dead.forget()
    third = ScratchDirectories(tmp_path)
    third.make("c", None)
    assert kept.exists()
    assert not left.parent.exists()
    living.close()
    third.close()
    assert list(tmp_path.iterdir()) == []
