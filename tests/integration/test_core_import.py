from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

_SCRIPT = """
import sys
from importlib.machinery import PathFinder

ALLOWED = {
    "fastapi", "starlette", "pydantic", "packaging", "pixsim7_backend",
    # what these bring with them
    "anyio", "sniffio", "idna", "typing_extensions", "typing_inspection", "annotated_types", "annotated_doc",
    "pydantic_core", "opentelemetry",
}

class Guard(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        top = name.partition(".")[0]
        is_known = top in ALLOWED or top in sys.stdlib_module_names or top.startswith("_")
        if not is_known and PathFinder.find_spec(top) is not None:
            blocked.append(top)
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
        return None

blocked = []
sys.meta_path.insert(0, Guard)
import pixsim7_backend.infrastructure.plugins
import pixsim7_backend.infrastructure.plugins.preview
from fastapi import FastAPI
app = FastAPI()
manager = pixsim7_backend.infrastructure.plugins.init_plugin_manager(app, sys.argv[1])
assert [record.id for record in manager.list_plugins()] == ["hello"], list(manager.iter_records())
for name in ("yaml", "sqlalchemy", "typer", "rich", "structlog", "httpx", "psycopg", "uvicorn"):
    assert name not in sys.modules, name
print("blocked:", sorted(set(blocked)))
"""

_PLUGIN = """
from fastapi import APIRouter
from pixsim7_backend.infrastructure.plugins.types import PluginManifest

manifest = PluginManifest(id="hello", name="Hello", version="1.0.0", description="Says hello")
router = APIRouter(prefix="/hello")
"""


def test_platform_needs_only_fastapi_pydantic_and_packaging(tmp_path: Path) -> None:
    """With every other library blocked the platform imports, and loads a plugin."""
    plugin = tmp_path / "plugins" / "hello"
    plugin.mkdir(parents=True)
    (plugin / "manifest.py").write_text(_PLUGIN)
    command = [sys.executable, "-c", _SCRIPT, str(plugin.parent)]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_app_touches_nothing(tmp_path: Path) -> None:
    """`import pixsim7_backend.main` reads no setting, opens no file for writing and no connection."""
    script = (
        "import sys\n"
        "touched = []\n"
        "def watch(event, arguments):\n"
        "    if event in ('sqlite3.connect', 'socket.connect', 'socket.getaddrinfo', 'os.mkdir'):\n"
        "        touched.append((event, arguments))\n"
        "    if event == 'open' and isinstance(arguments[1], str) and set(arguments[1]) & set('wax+'):\n"
        "        touched.append((event, arguments))\n"
        "sys.dont_write_bytecode = True\n"
        "sys.addaudithook(watch)\n"
        "import pixsim7_backend.main\n"
        "assert not touched, touched\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PYTHONPATH": str(ROOT), "PORT": "not a port", "DATABASE_URL": "nonsense"},
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (["--help"], set()),
        (["plugins", "--help"], set()),
        (["plugins", "new", "my-feature"], set()),
        (["plugins", "list"], {"sqlalchemy"}),
        (["plugins", "plan"], {"sqlalchemy"}),
    ],
)
def test_light_commands_import_nothing_heavy(tmp_path: Path, arguments: list[str], needed: set[str]) -> None:
    """What few commands need is imported by those only; a command that uses no database waits for no library of it."""
    heavy = {"sqlalchemy", "alembic", "mako", "httpx", "pygments", "uvicorn", "redis", "cryptography", "argon2", "jwt"}
    script = (
        "import sys\n"
        "from pixsim7_backend.__main__ import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        f"print(sorted({heavy!r} & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"{sorted(needed)}\n"
