"""What happened to the plugins lately: the newest entries, kept in memory for whoever asks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ._ledger.ledger import LeakReport
from ._reporter import Reporter
from .records import PluginRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """One thing that happened; ``number`` counts up from 1, also past what is kept."""

    number: int
    at: datetime
    kind: str
    plugin: str = ""
    text: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the happening as JSON-able values."""
        return {
            "number": self.number,
            "at": self.at.isoformat(),
            "kind": self.kind,
            "plugin": self.plugin or None,
            "text": self.text,
        }


def utc_now() -> datetime:
    return datetime.now(UTC)


class Journal:
    """A reporter that remembers the last ``size`` things it was told, and hands everything on to another one."""

    def __init__(self, reporter: Reporter, *, size: int = 500, clock: Callable[[], datetime] = utc_now) -> None:
        self._next = reporter
        self._clock = clock
        self._entries: deque[Happening] = deque(maxlen=size)
        self._count = 0

    def iter_since(self, number: int = 0) -> Iterator[Happening]:
        """Yield what is kept with a higher number, oldest first."""
        yield from [each for each in self._entries if each.number > number]

    def note(self, kind: str, plugin: str = "", text: str = "") -> None:
        """Remember something that nobody reports: an operator's change that was refused."""
        self._count += 1
        self._entries.append(Happening(number=self._count, at=self._clock(), kind=kind, plugin=plugin, text=text))

    # --- what is reported -------------------------------------------------------------------------

    def discovered(self, folders: Sequence[str]) -> None:
        self.note("discovered", text=", ".join(folders))
        self._next.discovered(folders)

    def warned(self, text: str) -> None:
        self.note("warned", text=text)
        self._next.warned(text)

    def loaded(self, record: PluginRecord) -> None:
        self._about("loaded", record)
        self._next.loaded(record)

    def held(self, record: PluginRecord) -> None:
        self.note(str(record.state), record.id, str(record.reason or ""))
        self._next.held(record)

    def enabled(self, record: PluginRecord) -> None:
        self._about("enabled", record)
        self._next.enabled(record)

    def disabled(self, record: PluginRecord, report: LeakReport) -> None:
        self.note(str(record.state), record.id, str(record.reason or ""))
        self._left_behind(report)
        self._next.disabled(record, report)

    def replaced(self, record: PluginRecord) -> None:
        self._about("replaced", record)
        self._next.replaced(record)

    def retired(self, record: PluginRecord, report: LeakReport) -> None:
        self._left_behind(report)
        self._next.retired(record, report)

    def _about(self, kind: str, record: PluginRecord) -> None:
        self.note(kind, record.id, f"version {record.version}, generation {record.generation}")

    def _left_behind(self, report: LeakReport) -> None:
        for leak in report.leaks:
            self.note("leaked", report.plugin, str(leak))
