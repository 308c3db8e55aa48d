"""Whose code a thread runs, read from its stack."""

from __future__ import annotations

import inspect
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType

Directories = Mapping[str, str]
"""Plugin ids by directory; the directories end with a slash."""

_PLATFORM = f"{Path(__file__).parents[1]}/"
_LIBRARIES = tuple(f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib", "purelib", "platlib"))


@dataclass(frozen=True, slots=True)
class Turn:
    """Whose turn it is (None: the host's), and the plugin's own code that was called, where there is any."""

    plugin: str | None
    code: CodeType | None = None


FindTurn = Callable[[FrameType], Turn | None]
"""Tells from a frame through which control enters plugins whose turn it is; None: it cannot be told from this one."""


@dataclass(frozen=True, slots=True)
class Culprit:
    """A line that is being executed, and whose it is (None: the host's).

    ``inside`` is the innermost line where that is another one.
    """

    plugin: str | None
    file: str
    line: int
    function: str
    inside: str = ""


def find_culprit(
    top: FrameType,
    directories: Directories,
    entries: Mapping[CodeType, FindTurn],
    find_task_owner: Callable[[], str | None],
) -> Culprit:
    """Return who is to answer for what a stack does, seen from its innermost frame.

    That is the plugin with the innermost frame, but whatever runs inside an entry into a plugin (a
    library function as a handler, FastAPI at the plugin's large answer) is that plugin's matter, and not
    of who is further out. Code of the host that is reached without a line of the plugin (a dependency,
    the host's own handler of an event) is the host's; of it the line is the innermost one that is neither
    of a library nor of the platform.
    """
    is_hosts = False
    for frame in _stack(top):
        plugin = _owner_of(frame.f_code.co_filename, directories)
        if plugin is not None:
            return _culprit(plugin, frame, top)
        find_turn = entries.get(frame.f_code)
        turn = find_turn(frame) if find_turn is not None else None
        if turn is not None:
            return _hosts(top) if is_hosts or turn.plugin is None else _in_turn(turn.plugin, turn.code, top)
        is_hosts = is_hosts or _is_hosts(frame)
    plugin = find_task_owner()
    return _in_turn(plugin, None, top) if plugin is not None else _hosts(top)


def _hosts(top: FrameType) -> Culprit:
    return _culprit(None, next(filter(_is_hosts, _stack(top)), top), top)


def _is_hosts(frame: FrameType) -> bool:
    return not frame.f_code.co_filename.startswith((_PLATFORM, *_LIBRARIES, "<"))


def _in_turn(plugin: str, code: CodeType | None, top: FrameType) -> Culprit:
    """Name the code that was called; where that is not known, the line that runs."""
    if code is None:
        return _culprit(plugin, top, top)
    return Culprit(plugin, code.co_filename, code.co_firstlineno, code.co_qualname, _place(top))


def _stack(top: FrameType) -> Iterator[FrameType]:
    frame: FrameType | None = top
    while frame is not None:
        yield frame
        frame = frame.f_back


def _owner_of(file: str, directories: Directories) -> str | None:
    return next((plugin for directory, plugin in directories.items() if file.startswith(directory)), None)


def _culprit(plugin: str | None, frame: FrameType, top: FrameType) -> Culprit:
    code = frame.f_code
    inside = "" if frame is top else _place(top)
    return Culprit(plugin, code.co_filename, frame.f_lineno or code.co_firstlineno, code.co_qualname, inside)


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_qualname} at {frame.f_code.co_filename}:{frame.f_lineno}"


def place_of(function: object) -> str:
    """Return file and line at which a function begins; nothing of what has no code of its own."""
    code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
    return f"{code.co_filename}:{code.co_firstlineno}" if code is not None else ""
