"""Documents as tests: the code blocks of a Markdown file, and console transcripts that are run as printed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^(?P<mark><!-- [^\n]* -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block; ``mark`` is the comment right above it."""

    language: str
    code: str
    line: int
    mark: str = ""


@dataclass(frozen=True)
class Step:
    """A command of a transcript and what it prints."""

    command: str
    output: str


def blocks_of(file: Path) -> list[Block]:
    """Return the fenced blocks of a document, in order."""
    text = file.read_text(encoding="utf-8")
    return [
        Block(
            match["language"], match["code"], text[: match.start("code")].count("\n") + 1, (match["mark"] or "").strip()
        )
        for match in _BLOCK.finditer(text)
    ]


def steps_of(transcript: str) -> Iterator[Step]:
    r"""Yield the ``$ …`` commands with their output. A command goes on after ``\`` and inside quotes."""
    command: list[str] = []
    output: list[str] = []
    for line in transcript.splitlines():
        if line.startswith("$ "):
            if command:
                yield Step("\n".join(command), "\n".join(output))
            command, output = [line[2:]], []
        elif _goes_on("\n".join(command)):
            command.append(line)
        else:
            output.append(line)
    yield Step("\n".join(command), "\n".join(output))


def _goes_on(command: str) -> bool:
    return command.endswith("\\") or command.replace("\\'", "").count("'") % 2 == 1
