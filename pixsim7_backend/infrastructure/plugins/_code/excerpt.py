"""The line of a plugin's code at which an error arose, as a traceback shows it."""

from __future__ import annotations

import linecache
import os
import traceback
from collections.abc import Iterator
from pathlib import Path

from pixsim7_backend.infrastructure.plugins.errors import PluginError


def excerpt(error: PluginError, folder: Path) -> str:
    """Return file, line, source line and, where known, the marked part of it; empty when no line is to blame."""
    linecache.checkcache()
    for cause in _causes(error):
        if isinstance(cause, SyntaxError) and cause.filename:
            return "".join(traceback.format_exception_only(cause)[:-1]).rstrip()
        inside = os.path.join(folder, "")  # noqa: PTH118  # with the separator: "a" is not the start of "ab"
        frames = [each for each in traceback.extract_tb(cause.__traceback__) if each.filename.startswith(inside)]
        if frames:
            return "".join(traceback.StackSummary.from_list(frames[-1:]).format()).rstrip()
    file, line = error.fields.get("file"), error.fields.get("line")
    if file is None or not line:
        return ""
    source = linecache.getline(str(file), line).rstrip()
    return f'  File "{file}", line {line}\n    {source.strip()}'.rstrip()


def let_go(error: BaseException) -> None:
    """Drop the frames that an error holds, and with them the code of a generation that was given up."""
    for each in _causes(error):
        each.__traceback__ = None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and what led to it, the latest first."""
    seen: set[int] = set()
    now: BaseException | None = error
    while now is not None and id(now) not in seen:
        seen.add(id(now))
        yield now
        now = now.__cause__ or now.__context__
