"""Logging of the whole process: readable on a terminal, JSON otherwise, each line with its request and plugin.

Everything goes through the standard library: the backend, the platform (``pixsim7.…``), plugins'
own loggers and uvicorn's end in one handler on the root logger, which writes to standard error.
"""

from __future__ import annotations

import functools
import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TextIO

from pixsim7_backend.infrastructure.plugins import current_owner
from pixsim7_backend.request_ids import current_request_id

_UVICORN = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")
#: Libraries that tell at INFO what interests their authors; with LOG_LEVEL=DEBUG they may.
_CHATTY = ("alembic", "httpx", "httpcore", "aiosqlite", "asyncio", "watchfiles")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "request_id", "plugin"}
#: Control characters could forge lines or drive a terminal; a line break inside a message is shown as \n.
_ESCAPED = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_ESCAPED |= {0x0A: "\\n", 0x0D: "\\r", 0x2028: "\\u2028", 0x2029: "\\u2029"}
_ESCAPED.pop(0x09)
_COLOURS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[1;31m"}
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


class LogFormat(StrEnum):
    """How lines look; ``auto`` is ``console`` on a terminal and ``json`` elsewhere."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


def configure_logging(log_format: LogFormat = LogFormat.AUTO, level: str = "INFO") -> Callable[[], None]:
    """Send every logger's lines through one handler; return the undo. A second call in a row changes nothing.

    Handlers that others put on the root logger stay.
    """
    root = logging.getLogger()
    if any(isinstance(handler, StderrHandler) for handler in root.handlers):
        return lambda: None
    handler = StderrHandler()
    handler.setFormatter(_formatter(log_format, sys.stderr))
    former_level = root.level
    root.addHandler(handler)
    root.setLevel(level)
    undos = [*_reroute_uvicorn(), *(_quieten() if level != "DEBUG" else ())]

    def undo() -> None:
        root.removeHandler(handler)
        root.setLevel(former_level)
        for put_back in undos:
            put_back()

    return undo


class StderrHandler(logging.StreamHandler[TextIO]):
    """Writes to what standard error is at that moment, with the request and the plugin on the record."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.addFilter(add_context)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # StreamHandler keeps one stream; tests and daemons replace it
        return sys.stderr


def add_context(record: logging.LogRecord) -> bool:
    """Put ``request_id`` and ``plugin`` on the record (None where there is none); never drop it."""
    if not hasattr(record, "request_id"):
        record.request_id = current_request_id.get()
    if not hasattr(record, "plugin"):
        owner = current_owner()
        record.plugin = owner.plugin if owner else None
    return True


class ConsoleFormatter(logging.Formatter):
    """``12:00:00 INFO: message  plugin=… request_id=… key=value``, then the traceback, if any."""

    def __init__(self, *, is_coloured: bool) -> None:
        super().__init__()
        self.is_coloured = is_coloured

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        text = f"{record.levelname}: {_message(record)}"
        extra = " ".join(f"{key}={escape(str(value))}" for key, value in _context(record))
        if self.is_coloured:
            colour = _COLOURS.get(record.levelno, "")
            time, text = f"{_DIM}{time}{_PLAIN}", f"{colour}{text}{_PLAIN if colour else ''}"
            extra = f"{_DIM}{extra}{_PLAIN}" if extra else ""
        line = f"{time} {text}" + (f"  {extra}" if extra else "")
        return "\n".join([line, *(escape(row) for row in _traceback(record).splitlines())])


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time (UTC), level, logger, message, request_id, plugin, further fields, traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **dict(_context(record)),
        }
        if trace := _traceback(record):
            line["traceback"] = trace
        return json.dumps(line, ensure_ascii=False, default=str).translate(_ESCAPED_IN_JSON)


_ESCAPED_IN_JSON = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), 0x2028, 0x2029)}


def escape(text: str) -> str:
    r"""Return ``text`` on one line, with control characters written as ``\n``, ``\x1b`` and the like."""
    return text.translate(_ESCAPED)


def _formatter(log_format: LogFormat, stream: TextIO) -> logging.Formatter:
    is_terminal = stream.isatty()
    if log_format is LogFormat.JSON or (log_format is LogFormat.AUTO and not is_terminal):
        return JsonFormatter()
    return ConsoleFormatter(is_coloured=is_terminal)


def _message(record: logging.LogRecord) -> str:
    """Return the message on one line; but a traceback that uvicorn logs as a message stays readable."""
    message = record.getMessage()
    if record.name == "uvicorn.error" and message.startswith("Traceback "):
        return "\n".join(escape(line) for line in message.splitlines())
    return escape(message)


def _context(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    """Yield who and which request the line is about, then what was given as ``extra``."""
    fields: Mapping[str, Any] = vars(record)
    for key in ("plugin", "request_id"):
        if fields.get(key):
            yield key, fields[key]
    yield from ((key, value) for key, value in fields.items() if key not in _STANDARD)


def _traceback(record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info and record.exc_info[0]:
        parts.append("".join(traceback.format_exception(*record.exc_info)).rstrip())
    if record.stack_info:
        parts.append(record.stack_info)
    return "\n".join(parts)


def _reroute_uvicorn() -> list[Callable[[], None]]:
    """Take uvicorn's own handlers away, so that its lines reach the root logger once; return the undos."""
    undos = []
    for name in _UVICORN:
        logger = logging.getLogger(name)
        undos.append(_restorer(logger, list(logger.handlers), propagates=logger.propagate))
        logger.handlers = []
        logger.propagate = True
    return undos


def _quieten() -> Iterator[Callable[[], None]]:
    """Let chatty libraries write warnings only; yield the undos."""
    for name in _CHATTY:
        logger = logging.getLogger(name)
        yield functools.partial(logger.setLevel, logger.level)
        logger.setLevel(logging.WARNING)


def _restorer(logger: logging.Logger, handlers: list[logging.Handler], *, propagates: bool) -> Callable[[], None]:
    def restore() -> None:
        logger.handlers = handlers
        logger.propagate = propagates

    return restore
