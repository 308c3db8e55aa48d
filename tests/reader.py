"""Somebody who follows a document by hand, in an empty directory: what its blocks say is done as printed.

The comment above a block says what it is:

* ``<!-- executed -->``: commands, and below each what it prints;
* ``<!-- file PATH -->``, ``<!-- adds to PATH -->``, ``<!-- edit PATH -->``: a file, more of it, a diff of it;
* ``<!-- the server -->``: a command that serves until the end of the document;
* ``<!-- printed by the server -->``: what it says from the last such block on.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from pixsim7_backend.cli import main
from tests.command_line import SETTING_NAMES
from tests.plain_http import answers
from tests.services import free_port, wait_until
from tests.transcripts import Block, blocks_of, steps_of

ROOT = Path(__file__).parents[1]
EXECUTED = "<!-- executed -->"
SERVER = "<!-- the server -->"
PRINTED = "<!-- printed by the server -->"
_FILE = re.compile(r"<!-- (?P<verb>file|adds to|edit) (?P<name>\S+) -->")
#: What differs from run to run: times, durations, figures of memory, ids of requests.
_VARYING = (
    (r"^\d\d:\d\d:\d\d ", ""),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.\d]*Z?", "(time)"),
    (r'"request_id":"\w+"', '"request_id":"…"'),
    (r"\b\d+\.\d+ ?s\b", "… s"),
    (r"[\d,]+ bytes", "… bytes"),
    (r" +$", ""),
)
_SETS_VARIABLE = re.compile(r"(export )?\w+=")
#: Settings of the machine that runs the tests would show in what is printed.
_UNSET = (*SETTING_NAMES, "PIXSIM7_CONFIG")


@dataclass
class Reader:
    """The reader, and the server that the document had them start."""

    place: Path
    port: int = field(default_factory=free_port)
    server: subprocess.Popen[bytes] | None = None
    seen: int = 0
    """How much of the server's output has been read."""

    @property
    def log(self) -> Path:
        return self.place / "log.txt"

    def environment(self) -> dict[str, str]:
        """Return the variables of the reader's shell."""
        kept = {name: value for name, value in os.environ.items() if name not in _UNSET}
        own = {"PORT": str(self.port)}
        quiet = {
            "LOG_FORMAT": "console",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_ADDOPTS": "-p no:cacheprovider",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        }
        return {**kept, "PYTHONPATH": str(ROOT), **own, **quiet}

    def follow(self, document: Path) -> None:
        """Do what every marked block of the document says; what is printed must be what stands there."""
        for block in blocks_of(document):
            if block.mark == EXECUTED:
                self.type(block)
            elif block.mark == SERVER:
                self.serve(block.code)
            elif block.mark == PRINTED:
                assert self.reads(block.code), f"line {block.line}: {self.log.read_text()}"
            elif found := _FILE.fullmatch(block.mark):
                self.write(found["verb"], found["name"], block)

    def type(self, block: Block) -> None:
        """Run the commands of a transcript; in one shell where they set variables for one another."""
        steps = list(steps_of(block.code))
        if any(_SETS_VARIABLE.match(step.command) for step in steps):
            printed = self.shell([step.command for step in steps])
        else:
            printed = [
                self.run(each) if _is_plain(each) else self.shell([each])[0]
                for each in (step.command for step in steps)
            ]
        for step, text in zip(steps, printed, strict=True):
            assert self.normal(text) == self.normal(step.output), f"line {block.line}: {step.command}"

    def shell(self, commands: list[str]) -> list[str]:
        """Run commands in one shell; return what each printed."""
        known = f'pixsim7() {{ "{sys.executable}" -m pixsim7_backend "$@"; }}; python() {{ "{sys.executable}" "$@"; }}'
        end = "--- end of step"
        script = "\n".join([known, 'python3() { python "$@"; }', *(f"{each}\necho '{end}'" for each in commands)])
        script = script.replace("localhost:8000", f"127.0.0.1:{self.port}").replace(".venv/bin/pixsim7", "pixsim7")
        done = subprocess.run(
            ["bash", "-uc", script],
            cwd=self.place,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
        )
        return done.stdout.split(f"{end}\n")[:-1]

    def run(self, command: str) -> str:
        """Run ``pixsim7 …`` in this process, which saves importing everything again; return what it prints."""
        words = shlex.split(command)
        printed = io.StringIO()
        with (
            contextlib.chdir(self.place),
            patch.dict(os.environ, self.environment(), clear=True),
            patch.object(sys, "argv", words),
            patch.object(sys, "stdin", io.StringIO()),
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            contextlib.suppress(SystemExit),
        ):
            main()
        return printed.getvalue()

    def write(self, verb: str, name: str, block: Block) -> None:
        """Write a file, add to it, or change it as a diff says; what that takes away must be there once."""
        file = self.place / name
        if verb == "edit":
            lines = block.code.splitlines(keepends=True)
            old = "".join(line[1:] for line in lines if line[0] in " -")
            new = "".join(line[1:] for line in lines if line[0] in " +")
            text = file.read_text()
            assert text.count(old) == 1, f"line {block.line}: {old}"
            file.write_text(text.replace(old, new))
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        before = file.read_text() if verb == "adds to" else ""
        file.write_text(f"{before}\n\n{block.code}" if before else block.code)

    def serve(self, command: str) -> None:
        """Start the server as the reader's first terminal does, in place of an earlier one; wait until it answers."""
        self.stop()
        line = f"exec env {command.strip()}"
        for tool, module in (("pixsim7 serve", "pixsim7_backend serve"), ("uvicorn ", f"uvicorn --port {self.port} ")):
            line = line.replace(tool, f"{sys.executable} -m {module}")
        with self.log.open("wb") as log:
            self.server = subprocess.Popen(
                ["bash", "-c", line], cwd=self.place, env=self.environment(), stdout=log, stderr=log
            )
        server = self.server
        assert wait_until(lambda: server.poll() is not None or answers(f"http://127.0.0.1:{self.port}/healthz"))
        assert server.poll() is None, self.log.read_text()
        self.seen = 0

    def stop(self) -> None:
        """End the server, if there is one."""
        if self.server is not None:
            self.server.send_signal(signal.SIGTERM)
            self.server.wait(30)
            self.server = None

    def reads(self, expected: str) -> bool:
        """Wait until the server has printed these lines since it was last asked."""

        def is_there() -> bool:
            return self.normal(expected) in self.normal(self.log.read_text()[self.seen :])

        found = wait_until(is_there)
        self.seen = len(self.log.read_text())
        return found

    def normal(self, text: str) -> str:
        """Return the text without what differs from run to run."""
        text = text.replace(str(self.place), "...").replace(str(self.port), "8000").replace("127.0.0.1", "localhost")
        for pattern, instead in _VARYING:
            text = re.sub(pattern, instead, text, flags=re.MULTILINE)
        return text.strip("\n")


def _is_plain(command: str) -> bool:
    return command.startswith("pixsim7 ") and not re.search(r"[|&;<>$`*\n]", re.sub(r"'[^']*'", "", command))


@contextmanager
def reader(place: Path) -> Iterator[Reader]:
    """Give a reader in an empty directory; end their server afterwards."""
    author = Reader(place)
    try:
        yield author
    finally:
        author.stop()


def unmarked(document: Path, allowed: Collection[str]) -> list[int]:
    """Return the lines of blocks that nobody executes and that are not of a language that needs none."""
    marks = (EXECUTED, SERVER, PRINTED)
    return [
        block.line
        for block in blocks_of(document)
        if block.mark not in marks and not _FILE.fullmatch(block.mark) and block.language not in allowed
    ]
