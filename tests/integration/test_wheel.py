from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import httpx
import pytest

from tests import plain_http
from tests.services import free_port, wait_until

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from what git does not ignore, offline and without isolation."""
    source = tmp_path_factory.mktemp("source")
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    names = [name for name in tracked.stdout.split("\0") if name and (ROOT / name).is_file()]
    for name in names:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, source / name)
    target = tmp_path_factory.mktemp("wheel")
    command = ["pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(target)]
    subprocess.run([sys.executable, "-m", *command, str(source)], check=True, capture_output=True)
    [built] = target.iterdir()
    return built


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The console script in a virtual environment that has the wheel, and the locked libraries, taken from here."""
    place = tmp_path_factory.mktemp("venv")
    venv.create(place, symlinks=True, with_pip=False)
    paths = {"base": str(place), "platbase": str(place)}
    libraries = Path(sysconfig.get_path("purelib", vars=paths))
    install = ["pip", "--python", str(place), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, "-m", *install], check=True, capture_output=True)
    _link_runtime_libraries(libraries)
    return place / "bin" / "pixsim7"


def _link_runtime_libraries(target: Path) -> None:
    """Link what requirements/runtime.txt locks, as it is installed here: no test tool comes along."""
    for line in (ROOT / "requirements" / "runtime.txt").read_text().splitlines():
        name, is_requirement, _ = line.partition("==")
        if not is_requirement:
            continue
        try:
            files = distribution(name).files or []
        except PackageNotFoundError:  # for another platform
            continue
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            if not (target / top).exists():
                (target / top).symlink_to(Path(sysconfig.get_path("purelib")) / top)


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """Plugins, their migrations and the type marker are in the wheel; tests, data and caches are not."""
    names = zipfile.ZipFile(wheel).namelist()
    assert "pixsim7_backend/py.typed" in names
    assert "pixsim7_backend/plugins/game_stealth/manifest.py" in names
    assert any(name.startswith("pixsim7_backend/plugins/auth/migrations/0001") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"pixsim7_backend"}
    assert not [name for name in names if "__pycache__" in name or name.endswith((".sqlite3", ".pyc"))]


def test_installed_command_serves_from_an_empty_directory(command: Path, tmp_path: Path) -> None:
    """`pixsim7 serve` of the wheel answers /healthz and a plugin's route, and keeps its data where it was started."""
    port = free_port()
    environment = {"PATH": os.environ["PATH"], "HOST": "127.0.0.1", "PORT": str(port), "LOG_FORMAT": "console"}
    log = tmp_path.parent / f"{tmp_path.name}.log"
    with log.open("wb") as stderr:
        process = subprocess.Popen([command, "serve"], cwd=tmp_path, env=environment, stderr=stderr)
    try:
        assert wait_until(lambda: process.poll() is not None or _status(port, "/healthz") == 200)
        assert process.poll() is None, log.read_text()
        assert _status(port, "/api/v1/game/worlds/") == 401
        document = plain_http.get(f"http://127.0.0.1:{port}/openapi.json").json()
        assert "/api/v1/game/stealth/pickpocket" in document["paths"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_installed_command_knows_its_plugins(command: Path, tmp_path: Path) -> None:
    """The plugins beside the installed package are found from any directory."""
    done = subprocess.run(
        [command, "plugins", "list", "--json"], cwd=tmp_path, capture_output=True, text=True, check=True, env={}
    )
    rows = json.loads(done.stdout)
    assert len(rows) == 8
    assert all(str(command.parents[1]) in row["path"] for row in rows)


def _status(port: int, path: str) -> int:
    try:
        return plain_http.get(f"http://127.0.0.1:{port}{path}", timeout=1).status_code
    except httpx.TransportError:
        return 0
