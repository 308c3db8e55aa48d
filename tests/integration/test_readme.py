from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.services import free_port, wait_until
from tests.transcripts import blocks_of, steps_of

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
MARK = "<!-- executed by tests/integration/test_readme.py -->"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty working directory."""
    return tmp_path_factory.mktemp("readme")


@pytest.fixture(scope="module")
def port(place: Path) -> Iterator[int]:
    """The port of a backend that was started in that place, as `make serve` does."""
    chosen = free_port()
    environment = {**_environment(), "PORT": str(chosen), "LOG_FORMAT": "console"}
    log = place / "log.txt"
    with log.open("wb") as stderr:
        command = [sys.executable, "-m", "pixsim7_backend", "serve"]
        process = subprocess.Popen(command, cwd=place, env=environment, stderr=stderr)
    try:
        assert wait_until(lambda: process.poll() is not None or _answers(chosen))
        assert process.poll() is None, log.read_text()
        yield chosen
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "DATA_DIR": "data", "DATABASE_URL": "", "HOST": "127.0.0.1"}


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=1).status_code == 200
    except httpx.TransportError:
        return False


def test_transcript_runs_as_printed(port: int, place: Path) -> None:
    """Every command of the README's example prints exactly what stands below it."""
    [transcript] = [block.code for block in blocks_of(README) if block.mark == MARK]
    steps = list(steps_of(transcript))
    assert len(steps) == 8
    script = "\n".join(f"{step.command}\necho '--- end of step'" for step in steps)
    script = script.replace("localhost:8000", f"127.0.0.1:{port}")
    script = script.replace(".venv/bin/pixsim7", f"{sys.executable} -m pixsim7_backend").replace(
        "python3", sys.executable
    )
    done = subprocess.run(
        ["bash", "-euc", script],
        cwd=place,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    printed = [part.strip("\n") for part in done.stdout.split("--- end of step\n")[:-1]]
    assert printed == [step.output.strip("\n") for step in steps]


def test_bare_curl_of_the_guide_is_asked_to_log_in(port: int) -> None:
    """Without a token the guide's curl finds its route and is told how to authenticate."""
    answer = httpx.post(f"http://127.0.0.1:{port}/api/v1/game/stealth/pickpocket", content=b"{}")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"


def test_plugin_and_host_of_the_readme_work_together(tmp_path: Path) -> None:
    """The README's plugin, put into the README's own FastAPI app, answers."""
    plugin, host = [block.code for block in blocks_of(README) if block.language == "python"]
    folder = tmp_path / "plugins" / "my_feature"
    folder.mkdir(parents=True)
    (folder / "manifest.py").write_text(plugin)
    (tmp_path / "host.py").write_text(host)
    script = (
        "from fastapi.testclient import TestClient\n"
        "from host import app\n"
        "with TestClient(app) as client:\n"
        "    print(client.get('/api/v1/my-feature/hello').json())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=_environment(), capture_output=True, text=True, check=False
    )
    assert done.stdout == "{'message': 'Hello from my plugin!'}\n", done.stderr
    assert "INFO: Loaded plugin: My Feature v1.0.0" in done.stderr


def test_two_commands_are_targets_of_the_makefile() -> None:
    """What the README tells people to type exists."""
    commands = re.findall(r"make (\w+)", README.read_text())
    targets = re.findall(r"^(\w+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"serve", "test", "demo", "bench", "help"} <= set(targets)
    assert set(commands) <= set(targets)
