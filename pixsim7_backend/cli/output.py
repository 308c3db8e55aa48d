"""What commands print: results on standard output, errors on standard error, JSON where it is asked for."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, TypeVar

import typer
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from pixsim7_backend.logging import escape

_WIDTH_WITHOUT_TERMINAL = 160

Step = TypeVar("Step")
JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON.")]


class CommandError(Exception):
    """The command cannot do its work; the text is one sentence with the way out."""

    def __init__(self, message: str, *, exit_status: int = 1) -> None:
        super().__init__(message)
        self.exit_status = exit_status


def print_json(value: Any) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def say(text: str) -> None:
    """Print text as it is."""
    sys.stdout.write(text + "\n")


def fail(text: str) -> None:
    """Print an error; line breaks stay, other control characters are escaped."""
    lines = [escape(line) for line in text.splitlines()]
    _console(stderr=True).print(Text.assemble(("error: ", "bold red"), "\n".join(lines)), soft_wrap=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Text | str]]) -> None:
    """Print rows under headings; on a terminal the last column wraps."""
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(escape(cell)) for cell in row))
    _console().print(table)


def _console(*, stderr: bool = False) -> Console:
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH_WITHOUT_TERMINAL
    return console


def print_lines(lines: Iterable[Text]) -> None:
    """Print lines, coloured on a terminal; none is broken."""
    console = _console()
    for line in lines:
        console.print(line, soft_wrap=True)


def show_progress(steps: Sequence[Step], title: str, *, is_shown: bool) -> Iterable[Step]:
    """Go through the steps; on a terminal with a bar on standard error, where it is wanted."""
    console = _console(stderr=True)
    return track(steps, title, console=console, transient=True, disable=not (is_shown and console.is_terminal))
