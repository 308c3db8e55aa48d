"""The code of the plugin guide, as the tests read it: each block by the words above it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

GUIDE = Path(__file__).with_name("blocks.md")


@dataclass(frozen=True, slots=True)
class Block:
    """A code block: the chapter it is in, the line of text above it, its language and its code."""

    chapter: str
    caption: str
    language: str
    code: str


def blocks() -> list[Block]:
    """Return all code blocks of the guide in its order; ``# OLD`` comments inside code are no chapters."""
    found: list[Block] = []
    chapter = caption = language = ""
    code: list[str] | None = None
    for line in GUIDE.read_text(encoding="utf-8").splitlines():
        fence = re.fullmatch(r"```(\w*)", line)
        if code is not None:
            if fence:
                found.append(Block(chapter, caption, language, "\n".join(code) + "\n"))
                code = None
            else:
                code.append(line)
        elif fence:
            language, code = fence[1], []
        elif line.startswith("## "):
            chapter = caption = line.removeprefix("## ")
        elif line.strip():
            caption = line.strip("#* ").rstrip(":*")
    return found


def block(caption: str) -> str:
    """Return the code below the only caption that reads so."""
    [found] = [each.code for each in blocks() if each.caption == caption]
    return found
