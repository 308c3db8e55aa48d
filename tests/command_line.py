"""The command line inside a test, run as people run it: ``pixsim7`` with its arguments, in a place of its own."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pixsim7_backend.cli import main
from pixsim7_backend.settings import Settings

SETTING_NAMES = tuple(
    name.upper() for name in (*Settings.model_fields, "disabled_plugins", "on_plugin_error", "pixsim7_admin_password")
)
"""The environment variables that would be settings from outside."""


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class CommandLine:
    """Runs ``pixsim7`` in the working directory; ``before`` are arguments that each command begins with."""

    path: Path
    patch: pytest.MonkeyPatch
    captured: pytest.CaptureFixture[str]
    before: tuple[str, ...] = ()

    def __call__(self, *arguments: str, answers: str | None = None) -> Done:
        """Run one command to its end; ``answers`` is what is typed meanwhile."""
        self.patch.setattr(sys, "argv", ["pixsim7", *self.before, *arguments])
        if answers is not None:
            self.patch.setattr(sys, "stdin", io.StringIO(answers))
        self.captured.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        text = self.captured.readouterr()
        return Done(int(end.value.code or 0), text.out, text.err)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """The command line in an empty place, with no setting from outside."""
    monkeypatch.chdir(tmp_path)
    for name in SETTING_NAMES:
        monkeypatch.delenv(name, raising=False)
    return CommandLine(tmp_path, monkeypatch, capsys)
