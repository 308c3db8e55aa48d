from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.reader import ROOT, Reader, reader

README = ROOT / "README.md"


@pytest.fixture(scope="module")
def someone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """A reader in an empty directory, where `make serve` has been typed."""
    with reader(tmp_path_factory.mktemp("readme")) as found:
        found.serve("pixsim7 serve")
        yield found


def test_readme_runs_as_printed(someone: Reader) -> None:
    """Every command prints exactly what stands below it; the README's plugin answers in the README's own app."""
    someone.follow(README)
    script = (
        "from fastapi.testclient import TestClient\n"
        "from main import app\n"
        "with TestClient(app) as client:\n"
        "    print(client.get('/api/v1/my-feature/hello').json())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=someone.place,
        env={**someone.environment(), "DATA_DIR": "other"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "{'message': 'Hello from my plugin!'}\n", done.stderr
    assert "INFO: Loaded plugin: My Feature v1.0.0" in done.stderr


def test_bare_curl_of_the_guide_is_asked_to_log_in(someone: Reader) -> None:
    """Without a token the guide's curl finds its route and is told how to authenticate."""
    answer = httpx.post(f"http://127.0.0.1:{someone.port}/api/v1/game/stealth/pickpocket", content=b"{}")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"


def test_two_commands_are_targets_of_the_makefile() -> None:
    """What the README tells people to type exists."""
    commands = re.findall(r"make (\w+)", README.read_text())
    targets = re.findall(r"^(\w+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"serve", "test", "demo", "bench", "help"} <= set(targets)
    assert set(commands) <= set(targets)
