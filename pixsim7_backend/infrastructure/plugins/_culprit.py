"""Whose code a thread runs, read from its stack."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType

Directories = Mapping[str, str]
"""Plugin ids by directory; the directories end with a slash."""
FindOwner = Callable[[FrameType], "str | None"]
"""Tells from a frame of the platform, through which control enters plugins, whose turn it is."""

_PLATFORM = f"{Path(__file__).parent}/"
_LIBRARIES = tuple(f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib", "purelib", "platlib"))


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
    entries: Mapping[CodeType, FindOwner],
    find_task_owner: Callable[[], str | None],
) -> Culprit:
    """Return who is to answer for what a stack does, seen from its innermost frame.

    That is the plugin with the innermost frame, else the one by whose entry the code is reached
    (a library function as a handler, FastAPI at the plugin's large answer) or whose task it is, else
    the host. Of code of the host the line is the innermost one that is neither of a library nor of the
    platform.
    """
    for frame in _stack(top):
        plugin = _owner_of(frame.f_code.co_filename, directories)
        if plugin is not None:
            return _culprit(plugin, frame, top)
    for frame in _stack(top):
        find_owner = entries.get(frame.f_code)
        if find_owner is not None and (plugin := find_owner(frame)) is not None:
            return _culprit(plugin, top, top)
    if (plugin := find_task_owner()) is not None:
        return _culprit(plugin, top, top)
    own = (frame for frame in _stack(top) if not frame.f_code.co_filename.startswith((_PLATFORM, *_LIBRARIES, "<")))
    return _culprit(None, next(own, top), top)


def _stack(top: FrameType) -> Iterator[FrameType]:
    frame: FrameType | None = top
    while frame is not None:
        yield frame
        frame = frame.f_back


def _owner_of(file: str, directories: Directories) -> str | None:
    return next((plugin for directory, plugin in directories.items() if file.startswith(directory)), None)


def _culprit(plugin: str | None, frame: FrameType, top: FrameType) -> Culprit:
    code = frame.f_code
    inside = "" if frame is top else f"{top.f_code.co_qualname} at {top.f_code.co_filename}:{top.f_lineno}"
    return Culprit(plugin, code.co_filename, frame.f_lineno or code.co_firstlineno, code.co_qualname, inside)
