"""Who is told of a plugin's progress; the log, with the guide's lines, is one of them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Protocol

from ._ledger.ledger import LeakReport
from .errors import CircularDependencyError, PluginDisabledError
from .records import PluginRecord

logger = logging.getLogger("pixsim7.plugins")


class Reporter(Protocol):
    """Is told what the manager does, as it happens."""

    def discovered(self, folders: Sequence[str]) -> None: ...
    def warned(self, text: str) -> None: ...
    def loaded(self, record: PluginRecord) -> None: ...
    def held(self, record: PluginRecord) -> None: ...
    def enabled(self, record: PluginRecord) -> None: ...
    def disabled(self, record: PluginRecord, report: LeakReport) -> None: ...
    def replaced(self, record: PluginRecord) -> None: ...
    def retired(self, record: PluginRecord, report: LeakReport) -> None: ...


class LogReporter:
    """Writes the lines of the guide's troubleshooting chapter, and what else an operator looks for."""

    def __init__(self) -> None:
        self._cycles: set[tuple[str, ...]] = set()
        show_without_configuration()

    def discovered(self, folders: Sequence[str]) -> None:
        """Write ``Discovered 5 plugins: ['game_stealth', …]``."""
        logger.info("Discovered %d plugins: %s", len(folders), list(folders))

    def warned(self, text: str) -> None:
        logger.warning("%s", text)

    def loaded(self, record: PluginRecord) -> None:
        """Write ``Loaded plugin: Game Stealth v1.0.0``."""
        logger.info("Loaded plugin: %s v%s", record.name, record.version)

    def held(self, record: PluginRecord) -> None:
        """Write ``Skipping disabled plugin: …``, ``Circular dependency …`` or ``Failed to load plugin …``."""
        reason = record.reason
        if isinstance(reason, PluginDisabledError):
            logger.info("Skipping disabled plugin: %s", record.id)
        elif isinstance(reason, CircularDependencyError):
            cycle = tuple(reason.fields["cycle"])
            if cycle not in self._cycles:
                self._cycles.add(cycle)
                logger.error("%s", reason)
        else:
            logger.error("Failed to load plugin %s: %s", record.source.folder, reason)

    def enabled(self, record: PluginRecord) -> None:
        logger.debug("Enabled plugin: %s", record.id)

    def disabled(self, record: PluginRecord, report: LeakReport) -> None:
        logger.debug("Disabled plugin: %s", record.id)
        self._left_behind(record, report)

    def replaced(self, record: PluginRecord) -> None:
        logger.info("Replaced plugin: %s v%s (generation %d)", record.name, record.version, record.generation)

    def retired(self, record: PluginRecord, report: LeakReport) -> None:
        self._left_behind(record, report)

    def _left_behind(self, record: PluginRecord, report: LeakReport) -> None:
        for leak in report.leaks:
            logger.warning("Plugin %s left behind: %s", record.id, leak)


class _FallbackHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes ``INFO: …`` lines to standard error as long as the app has not configured logging."""

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.root.handlers:
            self.stream = sys.stderr
            super().emit(record)


def show_without_configuration() -> None:
    """Make the platform's lines visible in an app that configures no logging, as under plain uvicorn."""
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
    if not any(isinstance(handler, _FallbackHandler) for handler in logger.handlers):
        handler = _FallbackHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        logger.addHandler(handler)
