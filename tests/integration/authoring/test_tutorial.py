from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.services import free_port, wait_until
from tests.transcripts import Block, blocks_of, steps_of

ROOT = Path(__file__).parents[3]
TUTORIAL = ROOT / "docs" / "tutorial.md"
EXECUTED = "<!-- executed by tests/integration/authoring/test_tutorial.py -->"
PRINTED = "<!-- printed by the server -->"
SERVER = "<!-- the server -->"
_EDIT = re.compile(r"<!-- edit (\S+) -->")
#: What differs from run to run: times, durations, and figures of memory.
_VARYING = ((r"(?m)^\d\d:\d\d:\d\d ", ""), (r"in \d+\.\d+s", "in … s"), (r"[\d,]+ bytes", "… bytes"), (r" +$", ""))


@dataclass
class Author:
    """Somebody who works through the tutorial in an empty directory."""

    place: Path
    port: int
    seen: int = 0
    """How much of the server's output has been read."""

    @property
    def log(self) -> Path:
        return self.place / "log.txt"

    def environment(self) -> dict[str, str]:
        own = {"PORT": str(self.port), "HOST": "127.0.0.1", "DATA_DIR": "data", "DATABASE_URL": "", "DEBUG": ""}
        quiet = {"LOG_FORMAT": "console", "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_ADDOPTS": "-p no:cacheprovider"}
        return {**os.environ, "PYTHONPATH": str(ROOT), "DISABLED_PLUGINS": "", **own, **quiet}

    def shell(self, command: str) -> str:
        """Run a command as the tutorial prints it; return what it prints."""
        known = (
            f'pixsim7() {{ "{sys.executable}" -m pixsim7_backend "$@"; }}\npython() {{ "{sys.executable}" "$@"; }}\n'
        )
        script = known + command.replace("localhost:8000", f"127.0.0.1:{self.port}")
        done = subprocess.run(
            ["bash", "-uc", script],
            cwd=self.place,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
        )
        return self.normal(done.stdout)

    def normal(self, text: str) -> str:
        """Return the text without what differs from run to run."""
        text = text.replace(str(self.place), "...").replace(str(self.port), "8000")
        for pattern, instead in _VARYING:
            text = re.sub(pattern, instead, text, flags=re.MULTILINE)
        return text.strip("\n")

    def edit(self, name: str, diff: str) -> None:
        """Change a file as a diff says; what it takes away must be there once."""
        file = self.place / name
        lines = diff.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        new = "".join(line[1:] for line in lines if line[0] in " +")
        text = file.read_text()
        assert text.count(old) == 1
        file.write_text(text.replace(old, new))

    def reads(self, expected: str) -> bool:
        """Wait until the server has printed this since it was last asked."""

        def is_there() -> bool:
            return self.normal(expected) in self.normal(self.log.read_text()[self.seen :])

        found = wait_until(is_there)
        self.seen = len(self.log.read_text())
        return found


def _serve(author: Author, command: str) -> subprocess.Popen[bytes]:
    """Start the server as the tutorial's first terminal does, and wait for its first answer."""
    line = f"exec env {command.strip()}".replace("pixsim7 serve", f"{sys.executable} -m pixsim7_backend serve")
    with author.log.open("wb") as log:
        server = subprocess.Popen(["bash", "-c", line], cwd=author.place, env=author.environment(), stderr=log)
    assert wait_until(lambda: server.poll() is not None or _answers(author.port))
    assert server.poll() is None, author.log.read_text()
    author.seen = len(author.log.read_text())
    return server


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=1).status_code == 200
    except httpx.TransportError:
        return False


def test_tutorial_runs_as_printed(tmp_path: Path) -> None:
    """Each command prints what stands below it, each edit is live, and the server says what it should."""
    author = Author(tmp_path, free_port())
    server: subprocess.Popen[bytes] | None = None
    try:
        for block in blocks_of(TUTORIAL):
            if block.mark == SERVER:
                server = _serve(author, block.code)
            else:
                _follow(author, block)
    finally:
        if server is not None:
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) is not None


def _follow(author: Author, block: Block) -> None:
    if block.mark == EXECUTED:
        for step in steps_of(block.code):
            assert author.shell(step.command) == author.normal(step.output), f"line {block.line}: {step.command}"
    elif block.mark == PRINTED:
        assert author.reads(block.code), f"line {block.line}: {author.log.read_text()}"
    else:
        edited = _EDIT.fullmatch(block.mark)
        assert edited is not None, f"line {block.line}: {block.mark}"
        author.edit(edited[1], block.code)
