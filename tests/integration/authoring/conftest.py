"""The command line inside a test, run as an author runs it: in an empty place."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pixsim7_backend.cli import main
from pixsim7_backend.settings import Settings


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in an empty place, with no setting from outside."""
    monkeypatch.chdir(tmp_path)
    for name in (*Settings.model_fields, "disabled_plugins", "on_plugin_error"):
        monkeypatch.delenv(name.upper(), raising=False)

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["pixsim7", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        text = capsys.readouterr()
        return Done(int(end.value.code or 0), text.out, text.err)

    return run
