"""A newcomer's project: an app with the guide's lifespan, a plugin directory of its own, and a real server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.services import wait_until

from . import block

ROOT = Path(__file__).parents[3]

#: What the reader of the guide fills in for ``# ... same code``.
BODY = 'return {"attempt": req}'

_MAIN = """\
import logging

from fastapi import FastAPI

logger = logging.getLogger("main")

{lifespan}

app = FastAPI(lifespan=lifespan)


@app.get("/records")
def records():
    return [record.to_json() for record in app.state.plugin_manager.iter_records()]
"""

_PLUGIN = """\
from fastapi import APIRouter
from pixsim7_backend.infrastructure.plugins.types import PluginManifest

manifest = PluginManifest(
    id="{id}",
    name="{name}",
    version="1.0.0",
    description="A plugin beside the guide's",
    {more}
)

router = APIRouter(prefix="/{id}", tags=["{id}"])

@router.get("/hello")
def hello():
    return {{"hello": "{id}"}}
"""


@dataclass(frozen=True, slots=True)
class Site:
    """The project's folder."""

    root: Path

    @property
    def plugins(self) -> Path:
        """The guide's plugin directory, under the working directory."""
        return self.root / "pixsim7_backend" / "plugins"

    def add(self, folder: str, **files: str) -> Path:
        """Write a plugin's folder; ``manifest`` and ``init`` are its files' texts, absent ones are not written."""
        path = self.plugins / folder
        path.mkdir()
        for key, name in (("manifest", "manifest.py"), ("init", "__init__.py")):
            if key in files:
                (path / name).write_text(files[key], encoding="utf-8")
        return path

    def add_plain(self, folder: str, **fields: Any) -> Path:
        """Write a small good plugin with a few more manifest fields."""
        plugin_id = folder.replace("_", "-")
        more = "".join(f"{name}={value!r}, " for name, value in fields.items())
        text = _PLUGIN.format(id=plugin_id, name=plugin_id.replace("-", " ").title(), more=more)
        return self.add(folder, manifest=text, init="from .manifest import manifest, router\n")


def main_text(lifespan: str) -> str:
    """Return a ``main.py`` with the guide's lifespan, and a route that shows the records."""
    return _MAIN.format(lifespan=lifespan)


def new_site(root: Path) -> Site:
    """Make a project as the guide says: its ``main.py``, its template command, its two plugins."""
    (root / "main.py").write_text(main_text(block("After (Dynamic)")), encoding="utf-8")
    site = Site(root)
    subprocess.run(["bash", "-ec", block("Template")], cwd=root, check=True)
    for name, key in (
        ("manifest.py", "plugins/my_feature/manifest.py"),
        ("__init__.py", "plugins/my_feature/__init__.py"),
    ):
        (site.plugins / "my_feature" / name).write_text(block(key), encoding="utf-8")
    site.add("game_stealth", manifest=stealth_manifest(), init=block("plugins/game_stealth/__init__.py"))
    return site


def stealth_manifest() -> str:
    """Return the guide's converted router, its body filled in."""
    text = block("After (plugins/game_stealth/manifest.py)")
    assert text.count("    # ... same code\n") == 1
    return text.replace("# ... same code", BODY)


@dataclass(frozen=True, slots=True)
class Server:
    """A running server of a site."""

    client: httpx.Client
    log: Path

    @property
    def lines(self) -> list[str]:
        """What it printed so far."""
        return self.log.read_text(encoding="utf-8").splitlines()

    def record(self, plugin_id: str) -> dict[str, Any]:
        """Return a plugin's record."""
        [found] = [each for each in self.client.get("/records").json() if each["id"] == plugin_id]
        assert isinstance(found, dict)
        return found

    def states(self) -> dict[str, str]:
        """Return id → state."""
        return {each["id"]: each["state"] for each in self.client.get("/records").json()}


@contextmanager
def serve(site: Site, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Run ``uvicorn main:app`` in the site's folder until the block ends; it must stop cleanly."""
    dropped = ("DISABLED_PLUGINS", "ON_PLUGIN_ERROR", "PIXSIM7_CONFIG", "DATABASE_URL", "REDIS_URL", "DATA_DIR")
    own = {name: value for name, value in os.environ.items() if name not in dropped}
    own |= {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(environment or {})}
    log = site.root / "log.txt"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "uvicorn", "main:app", "--port", "0"]
        process = subprocess.Popen(command, cwd=site.root, env=own, stdout=output, stderr=output)
    try:
        assert wait_until(lambda: _port(log) is not None or process.poll() is not None), log.read_text()
        port = _port(log)
        assert port is not None, log.read_text()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            yield Server(client, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert "Application shutdown complete" in log.read_text()


def _port(log: Path) -> str | None:
    found = re.search(r"Uvicorn running on http://127\.0\.0\.1:(\d+)", log.read_text())
    return found and found[1]


def indented(code: str) -> str:
    """Return the code as the body of a function."""
    return textwrap.indent(code, "    ")
