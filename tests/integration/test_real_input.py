"""The guide's own plugins, texts and trouble, served by a real server in a project of their own."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pixsim7_backend.infrastructure.plugins import PluginEvents, PluginManifest
from tests.integration.guide import GUIDE, block, blocks
from tests.integration.guide.site import ROOT, Server, Site, indented, new_site, serve


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A project with the guide's two plugins."""
    return new_site(tmp_path)


def assert_guides_plugins_serve(server: Server) -> None:
    """Every route of the two works."""
    assert server.client.get("/api/v1/my-feature/hello").json() == {"message": "Hello from my plugin!"}
    assert server.client.post("/api/v1/my-feature/do-something").json() == {"success": True}
    assert server.client.post("/api/v1/game/stealth/pickpocket", params={"req": "npc 7"}).json() == {"attempt": "npc 7"}
    paths = server.client.get("/openapi.json").json()["paths"]
    assert paths["/api/v1/my-feature/hello"]["get"]["tags"] == ["my-feature"]
    assert paths["/api/v1/game/stealth/pickpocket"]["post"]["tags"] == ["game-stealth"]


# --- the guide as printed -------------------------------------------------------------------------


def test_the_guides_plugins_work_as_printed(site: Site) -> None:
    """Both serve, their hooks run, and the log has the guide's lines."""
    with serve(site) as server:
        assert_guides_plugins_serve(server)
        assert server.states() == {"game-stealth": "enabled", "my-feature": "enabled"}
        lines = server.lines
    assert "INFO: Discovered 2 plugins: ['game_stealth', 'my_feature']" in lines
    assert "INFO: Loaded plugin: Game Stealth & Pickpocket v1.0.0" in lines
    assert "INFO: Loaded plugin: My Feature v1.0.0" in lines
    told = [line for line in server.lines if line.startswith("Stealth plugin ")]
    assert told == ["Stealth plugin loaded", "Stealth plugin enabled", "Stealth plugin disabled"]
    assert not [line for line in server.lines if "ERROR" in line or "WARNING" in line or "Traceback" in line]


def test_a_folder_dropped_in_works_after_the_next_start(site: Site) -> None:
    """Create ``plugins/<name>/manifest.py``, done: no other file, no edit anywhere."""
    with serve(site) as server:
        assert server.client.get("/api/v1/dropped-in/hello").status_code == 404
    (site.add_plain("dropped_in") / "__init__.py").unlink()
    with serve(site) as server:
        assert server.client.get("/api/v1/dropped-in/hello").json() == {"hello": "dropped-in"}
        assert_guides_plugins_serve(server)


def test_an_installed_package_offers_a_plugin(site: Site) -> None:
    """By the entry point group ``pixsim7.plugins``: it needs no folder, and loses its id to one in the directory."""
    metadata = site.root / "acme_quests-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-quests\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[pixsim7.plugins]\nacme-quests = acme.quests\nmy-feature = acme.other\n"
    )
    (site.root / "acme").mkdir()
    site.add_plain("acme_quests").rename(site.root / "acme" / "quests")
    site.add_plain("other").rename(site.root / "acme" / "other")
    file = site.root / "acme" / "other" / "manifest.py"
    file.write_text(file.read_text().replace('id="other"', 'id="my-feature"'))
    with serve(site) as server:
        assert server.client.get("/api/v1/acme-quests/hello").json() == {"hello": "acme-quests"}
        assert server.record("acme-quests")["source"]["rank"] == "entry_point"
        assert_guides_plugins_serve(server)
        assert (
            f"ERROR: Failed to load plugin my-feature: plugin 'my-feature' is found twice:"
            f" {site.root}/acme/other and {site.plugins}/my_feature; remove one, or change its id"
        ) in server.lines


def test_hooks_and_events_work_as_printed(site: Site) -> None:
    """The guide's subscription, emission and life-cycle texts, put where the guide says."""
    subscriber = "\nasync def on_enable():\n" + indented(block("Plugins can subscribe to events"))
    emitter = (
        "\nfrom types import SimpleNamespace\n"
        "from pixsim7_backend.infrastructure.plugins import plugin_hooks, PluginEvents\n"
        '@router.post("/sessions")\nasync def create_session():\n    session = SimpleNamespace(id=42)\n'
        + indented(block("Emit events"))
        + "    return session.id\n"
    )
    hooks = (
        "\nimport asyncio\nfrom fastapi import FastAPI, Request\n"
        'async def my_background_task():\n    print("task started")\n    await asyncio.Event().wait()\n'
        'async def close_connections():\n    print("connections closed")\n'
        '@router.get("/state")\ndef state(request: Request):\n    return request.app.state.my_plugin_data\n'
        + block("Lifecycle Hooks")
    )
    for folder, text in (("subscriber", subscriber), ("emitter", emitter), ("hooked", hooks)):
        file = site.add_plain(folder) / "manifest.py"
        file.write_text(file.read_text() + text)
    with serve(site) as server:
        assert server.client.post("/api/v1/emitter/sessions").json() == 42
        assert "New session: 42" in server.lines
        assert server.client.get("/api/v1/hooked/state").json() == {}
        assert "task started" in server.lines
    assert "connections closed" in server.lines


# --- troubleshooting ------------------------------------------------------------------------------

TROUBLES = {
    "no_manifest": {"init": "from .manifest import manifest, router\n"},
    "no_router": {
        "manifest": "from pixsim7_backend.infrastructure.plugins.types import PluginManifest\n"
        'manifest = PluginManifest(id="no-router", name="N", version="1", description="d")\n',
        "init": "",
    },
    "not_exported": {"manifest": "from fastapi import APIRouter\nrouter = APIRouter()\n", "init": ""},
    "bad_syntax": {"manifest": "def broken(:\n    pass\n", "init": ""},
    "bad_field": {  # computed, so that only importing it tells
        "manifest": "from pixsim7_backend.infrastructure.plugins.types import PluginManifest\n"
        'manifest = PluginManifest(id="bad-field", name="N", version=str(None), description="d")\n',
    },
    "bad_import": {
        "manifest": "import no_such_library\n"
        "from pixsim7_backend.infrastructure.plugins.types import PluginManifest\n"
        'manifest = PluginManifest(id="bad-import", name="N", version="1", description="d")\n',
    },
}
DISABLED = "experimental_feature,beta-api"


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server with every trouble of the guide's chapter at once, and good plugins beside it."""
    site = new_site(tmp_path_factory.mktemp("troubled"))
    for folder, files in TROUBLES.items():
        site.add(folder, **files)
    site.add_plain("game_combat", dependencies=["game-npcs"])
    site.add_plain("game_npcs", dependencies=["game-combat"])
    site.add_plain("game_quests", dependencies=["game-items"])
    site.add_plain("game_rewards", dependencies=["game-quests"])
    site.add_plain("game_shop", dependencies=["game-stealth>=2"])
    site.add_plain("switched_off", enabled=False)
    site.add_plain("experimental_feature")
    site.add_plain("beta_api")
    with serve(site, {"DISABLED_PLUGINS": DISABLED}) as server:
        yield server


@pytest.mark.parametrize(
    ("plugin_id", "state", "line"),
    [
        (
            "no-manifest",
            "failed",
            (
                "ERROR: Failed to load plugin no_manifest: {plugins}/no_manifest has no manifest.py;"
                " add one that defines `manifest = PluginManifest(...)` and `router`"
            ),
        ),
        (
            "no-router",
            "failed",
            (
                "ERROR: Failed to load plugin no_router: {plugins}/no_router/manifest.py:"
                " `router` is missing; export an APIRouter: `router = APIRouter(...)`"
            ),
        ),
        (
            "not-exported",
            "failed",
            (
                "ERROR: Failed to load plugin not_exported: {plugins}/not_exported/manifest.py:"
                " does not define `manifest`; add `manifest = PluginManifest("
                'id="game-stealth", name="Game Stealth", version="1.0.0",'
                ' description="Provides stealth mechanics")`'
            ),
        ),
        (
            "bad-syntax",
            "failed",
            "ERROR: Failed to load plugin bad_syntax: {plugins}/bad_syntax/manifest.py:1: syntax error: invalid syntax",
        ),
        (
            "bad-field",
            "failed",
            (
                "ERROR: Failed to load plugin bad_field: {plugins}/bad_field/manifest.py:2:"
                " `version`: 'None' is not a PEP 440 version; write it like '1.0.0'"
            ),
        ),
        (
            "bad-import",
            "failed",
            (
                "ERROR: Failed to load plugin bad_import: ModuleNotFoundError: No module named 'no_such_library'"
                " ({plugins}/bad_import/manifest.py:1)"
            ),
        ),
        (
            "game-quests",
            "blocked",
            (
                "ERROR: Failed to load plugin game_quests:"
                " plugin 'game-quests' requires 'game-items', which is not installed"
            ),
        ),
        (
            "game-rewards",
            "blocked",
            (
                "ERROR: Failed to load plugin game_rewards: plugin 'game-rewards' requires 'game-quests',"
                " which is blocked: plugin 'game-quests' requires 'game-items', which is not installed"
            ),
        ),
        (
            "game-shop",
            "blocked",
            (
                "ERROR: Failed to load plugin game_shop:"
                " plugin 'game-shop' requires 'game-stealth>=2', but 'game-stealth' is version 1.0.0"
            ),
        ),
        ("game-combat", "blocked", "ERROR: Circular dependency detected: game-combat -> game-npcs -> game-combat"),
        ("game-npcs", "blocked", "ERROR: Circular dependency detected: game-combat -> game-npcs -> game-combat"),
        ("switched-off", "disabled", "INFO: Skipping disabled plugin: switched-off"),
        ("experimental-feature", "disabled", "INFO: Skipping disabled plugin: experimental-feature"),
        ("beta-api", "disabled", "INFO: Skipping disabled plugin: beta-api"),
    ],
)
def test_each_trouble_has_its_line_and_its_record(troubled: Server, plugin_id: str, state: str, line: str) -> None:
    """The printed line appears once, the record has the same reason, and the plugin serves nothing."""
    plugins = troubled.log.parent / "pixsim7_backend" / "plugins"
    assert troubled.lines.count(line.format(plugins=plugins)) == 1, "\n".join(troubled.lines)
    record = troubled.record(plugin_id)
    assert record["state"] == state
    if state == "disabled":
        assert record["reason"]["type"] == "PluginDisabledError"
    else:
        assert line.format(plugins=plugins).endswith(record["reason"]["message"])
    assert troubled.client.get(f"/api/v1/{plugin_id}/hello").status_code == 404


def test_beside_every_trouble_all_others_serve(troubled: Server) -> None:
    """The guide's two plugins do not notice; the number of discovered ones counts the broken folders."""
    assert_guides_plugins_serve(troubled)
    states = troubled.states()
    assert [plugin_id for plugin_id, state in states.items() if state == "enabled"] == ["game-stealth", "my-feature"]
    [discovered] = [line for line in troubled.lines if line.startswith("INFO: Discovered ")]
    folders = ast.literal_eval(discovered.partition(": ")[2].partition(": ")[2])
    assert discovered.startswith("INFO: Discovered 16 plugins: ['bad_field', 'bad_import', 'bad_syntax', ")
    assert folders == sorted(folders)
    assert len(folders) == len(states) == 16
    assert "Traceback" not in "\n".join(troubled.lines)


def test_the_guides_line_in_config_yaml_disables(site: Site) -> None:
    """``DISABLED_PLUGINS=...`` as printed, in a file called config.yaml in the working directory."""
    site.add_plain("experimental_feature")
    site.add_plain("beta_api")
    site.add_plain("gamma")
    (site.root / "config.yaml").write_text(block("Or at runtime"))
    with serve(site) as server:
        states = server.states()
        assert (states["experimental-feature"], states["beta-api"], states["gamma"]) == (
            "disabled",
            "disabled",
            "enabled",
        )
        assert server.client.get("/api/v1/gamma/hello").status_code == 200
        assert "INFO: Skipping disabled plugin: experimental-feature" in server.lines


def test_an_unknown_name_in_disabled_plugins_is_warned_of(site: Site) -> None:
    """With the nearest name, and nothing else happens."""
    with serve(site, {"DISABLED_PLUGINS": "my-featur"}) as server:
        assert_guides_plugins_serve(server)
        assert (
            "WARNING: DISABLED_PLUGINS names 'my-featur', which is not installed; did you mean 'my-feature'?"
            in server.lines
        )


@pytest.mark.parametrize("setting", ["ON_PLUGIN_ERROR=strict", "DISABLED_PLUGINS: {a: b}"])
def test_a_start_that_is_refused_says_why(site: Site, setting: str) -> None:
    """A strict policy with problems, or a file that makes no sense: no half-started server, and a clear last line."""
    site.add("bad_syntax", manifest="def broken(:\n")
    (site.root / "config.yaml").write_text(setting)
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-m", "uvicorn", "main:app", "--port", "0"]
    ended = subprocess.run(
        command, cwd=site.root, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode != 0
    if "strict" in setting:
        assert "PluginStartupError: start-up aborted, on_plugin_error is 'strict':" in ended.stderr
        assert f"  - bad-syntax: {site.plugins}/bad_syntax/manifest.py:1: syntax error: invalid syntax" in ended.stderr
    else:
        assert (
            f"ConfigurationError: {site.root}/config.yaml: DISABLED_PLUGINS is {{'a': 'b'}}, not names" in ended.stderr
        )


# --- the remaining blocks -------------------------------------------------------------------------


def run_snippet(caption: str, **names: Any) -> dict[str, Any]:
    """Execute a block of the guide with these names in place."""
    exec(compile(block(caption), f"{GUIDE}: {caption}", "exec"), names)  # noqa: S102  # the guide's own text
    return names


def test_the_manifests_in_passing_are_manifests() -> None:
    """Dependencies in order, a disabled plugin, a community plugin's permissions."""
    combat = run_snippet("Plugins can depend on other plugins", PluginManifest=PluginManifest)["manifest"]
    assert [str(each) for each in combat.requirements] == ["game-sessions", "game-npcs"]
    assert run_snippet("Enable/Disable", PluginManifest=PluginManifest)["manifest"].enabled is False


def test_the_events_are_those_of_the_guide() -> None:
    """Every name and value of the guide's list; what there is beyond it belongs to settings."""
    printed = {
        name: value for name, value in vars(run_snippet("Available events")["PluginEvents"]).items() if name.isupper()
    }
    ours = {event.name: event.value for event in PluginEvents}
    assert printed.items() <= ours.items()
    assert ours.keys() - printed.keys() == {"PLUGIN_SETTINGS_CHANGED"}


def test_no_block_of_the_guides_first_chapters_is_left_out() -> None:
    """Each block from Quick Start to Event System is named in a test here or in the one on coexistence."""
    chapters = ["Quick Start", "2. Convert Router to Plugin", "3. Create New Plugin", "Plugin Features"]
    pictures = {"Old Structure", "New Structure"}
    here = Path(__file__).parent
    texts = [here / "guide" / "site.py", Path(__file__), here / "test_coexistence.py"]
    tests = "\n".join(file.read_text() for file in texts)
    wanted = {each.caption for each in blocks() if each.chapter in [*chapters, "Event System (Hooks)"]} - pictures
    assert len(wanted) == 15
    assert {caption for caption in wanted if f'"{caption}"' not in tests} == set()
