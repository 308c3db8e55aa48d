"""What a benchmark reports: rows with a number, its target and whether it was reached."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One measured number. ``target`` reads like ``≤ 0.90``; a row without one is for comparison only."""

    name: str
    measured: float
    target: str
    unit: str
    ok: bool
    detail: str = ""


def at_most(name: str, measured: float, limit: float, unit: str, detail: str = "") -> Row:
    """Return a row that is fine when ``measured`` does not exceed ``limit``."""
    return Row(name, measured, f"≤ {limit:g}", unit, measured <= limit, detail)


def at_least(name: str, measured: float, limit: float, unit: str, detail: str = "") -> Row:
    """Return a row that is fine when ``measured`` reaches ``limit``."""
    return Row(name, measured, f"≥ {limit:g}", unit, measured >= limit, detail)


def for_comparison(name: str, measured: float, unit: str, detail: str = "") -> Row:
    """Return a row that shows how others do."""
    return Row(name, measured, "", unit, True, detail)


def as_json(rows: Iterable[Row]) -> str:
    """Return the rows as a JSON list of objects."""
    return json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False)


def as_table(rows: Iterable[Row]) -> str:
    """Return the rows as a table for people."""
    header = ("what", "measured", "target", "", "detail")
    lines = [header, *((row.name, _number(row), row.target, _verdict(row), row.detail) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _number(row: Row) -> str:
    digits = 3 if abs(row.measured) < 10 else 1
    return f"{row.measured:,.{digits}f} {row.unit}".rstrip()


def _verdict(row: Row) -> str:
    if not row.target:
        return ""
    return "ok" if row.ok else "MISSED"
