"""Files change, plugins follow: saved, broken, half written, mended, new and deleted."""

from __future__ import annotations

import asyncio
import builtins
import logging
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pixsim7_backend.infrastructure.plugins import PluginState, watch_plugins
from pixsim7_backend.infrastructure.plugins._watch import fingerprint, is_ignored
from pixsim7_backend.infrastructure.plugins.errors import ConfigurationError
from pixsim7_backend.infrastructure.plugins.testing import PluginHost, plugin_host, write_plugin

pytestmark = pytest.mark.anyio


def version(number: int, more: str = "") -> str:
    return f"VERSION = {number}\n@router.get('/version')\nasync def version() -> int: return VERSION\n{more}"


async def until(condition: Callable[[], Awaitable[bool]] | Callable[[], bool], limit: float = 10) -> None:
    """Wait for something that must come true."""
    async with asyncio.timeout(limit):
        while True:
            answer = condition()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.005)


async def answers(host: PluginHost, plugin: str, expected: int) -> None:
    async def does() -> bool:
        answer = await host.client.get(f"/api/v1/{plugin}/version")
        return answer.status_code == 200 and answer.json() == expected

    await until(does)


def errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_what_is_saved_is_live(tmp_path: Path) -> None:
    """The plugin's own file, a file below it, and one that is not Python."""
    folder = write_plugin(tmp_path, "quest", version(1))
    below = """
from pathlib import Path
from .deep.rules import VALUE
TEXT = (Path(__file__).parent / 'text.md').read_text()
"""
    (folder / "deep").mkdir()
    (folder / "deep" / "rules.py").write_text("VALUE = 10")
    (folder / "text.md").write_text("5")
    async with plugin_host(tmp_path) as host, watch_plugins(host.manager):
        write_plugin(tmp_path, "quest", below + "\n" + version(2).replace("return VERSION", "return VALUE + int(TEXT)"))
        await answers(host, "quest", 15)
        (folder / "deep" / "rules.py").write_text("VALUE = 20")
        await answers(host, "quest", 25)
        (folder / "text.md").write_text("6")
        await answers(host, "quest", 26)
        assert host.manager.reload_errors == {}


async def test_an_error_is_shown_with_its_line_and_mended_by_the_next_save(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The old code serves on; the log marks the place; the next version that works clears it."""
    folder = write_plugin(tmp_path, "quest", version(1))
    async with plugin_host(tmp_path) as host, watch_plugins(host.manager, settle=0.05):
        broken = "def on_load(app):\n    there = 1\n    return app.not_there + there"
        write_plugin(tmp_path, "quest", version(2, broken))
        await until(lambda: "quest" in host.manager.reload_errors)
        (record,) = errors(caplog)
        assert "Plugin quest was not reloaded, its generation 1 serves on: on_load of plugin 'quest'" in record.message
        line = (folder / "manifest.py").read_text().splitlines().index("    return app.not_there + there") + 1
        assert record.stack_info is not None
        assert record.stack_info.splitlines() == [
            f'  File "{folder / "manifest.py"}", line {line}, in on_load',
            "    return app.not_there + there",
            "           ^^^^^^^^^^^^^",
        ]
        assert (await host.client.get("/api/v1/quest/version")).json() == 1
        assert host.manager.reload_errors["quest"].__traceback__ is None
        write_plugin(tmp_path, "quest", version(3))
        await answers(host, "quest", 3)
        assert host.manager.reload_errors == {}


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("def broken(:", ["def broken(:", "^"]),
        ("import no_such_module", ["import no_such_module"]),
        ("x = undefined_name + 1", ["x = undefined_name + 1", "^^^^^^^^^^^^^^"]),
    ],
)
async def test_the_offending_line_is_shown(
    code: str, shown: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a traceback shows it, with the mark where Python knows one."""
    write_plugin(tmp_path, "quest", version(1))
    async with plugin_host(tmp_path) as host, watch_plugins(host.manager, settle=0.05):
        write_plugin(tmp_path, "quest", version(2, code))
        await until(lambda: "quest" in host.manager.reload_errors)
        (record,) = errors(caplog)
        assert [line.strip() for line in (record.stack_info or "").splitlines()][1:] == shown


async def test_a_half_written_file_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A slow save passes through states that cannot work; nobody hears of them, and no request is lost."""
    folder = write_plugin(tmp_path, "quest", version(1))
    async with plugin_host(tmp_path) as host, watch_plugins(host.manager, settle=0.4):
        write_plugin(tmp_path, "later", version(2))
        text = (tmp_path / "later" / "manifest.py").read_text().replace("later", "quest")
        (folder / "manifest.py").write_text("")
        for end in range(40, len(text), len(text) // 8):
            (folder / "manifest.py").write_text(text[:end])
            assert (await host.client.get("/api/v1/quest/version")).json() == 1
            await asyncio.sleep(0.04)
        (folder / "manifest.py").unlink()
        await asyncio.sleep(0.04)
        (folder / "manifest.py").write_text(text)
        await answers(host, "quest", 2)
        await asyncio.sleep(0.5)
        assert errors(caplog) == []
        assert host.manager.reload_errors == {}


async def test_folders_come_and_go(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A new folder is loaded, a deleted one unloaded; one that is deleted and written anew is replaced."""
    write_plugin(tmp_path, "quest", version(1))
    async with plugin_host(tmp_path) as host, watch_plugins(host.manager, settle=0.2):
        write_plugin(tmp_path, "guild", version(1))
        await answers(host, "guild", 1)
        shutil.rmtree(tmp_path / "quest")
        await until(lambda: host.record("quest").state is PluginState.REMOVED)
        assert (await host.client.get("/api/v1/quest/version")).status_code == 404
        write_plugin(tmp_path, "quest", version(2))
        await answers(host, "quest", 2)
        shutil.rmtree(tmp_path / "guild")
        write_plugin(tmp_path, "guild", version(2))
        await answers(host, "guild", 2)
        assert errors(caplog) == []


async def test_a_directory_may_begin_empty(tmp_path: Path) -> None:
    """The first plugin of a directory is noticed like any other, and so is its mistake."""
    async with plugin_host(tmp_path) as host, watch_plugins(host.manager, settle=0.05):
        write_plugin(tmp_path, "quest", "raise RuntimeError('no')")
        await until(lambda: "quest" in host.manager.reload_errors)
        write_plugin(tmp_path, "quest", version(1))
        await answers(host, "quest", 1)
        assert host.manager.reload_errors == {}


async def test_what_waited_for_another_plugin_recovers_with_it(tmp_path: Path) -> None:
    """A name is renamed in one plugin first and in its importer then: the second save mends both."""
    write_plugin(tmp_path, "base", "OLD = 1\n" + version(1))
    importer = "from ..base.manifest import {0}\n@router.get('/version')\ndef version() -> int: return {0}"
    write_plugin(tmp_path, "importer", importer.format("OLD"), dependencies=["base"])
    async with plugin_host(tmp_path) as host, watch_plugins(host.manager, settle=0.05):
        write_plugin(tmp_path, "base", "NEW = 2\n" + version(2))
        await until(lambda: "base" in host.manager.reload_errors)
        write_plugin(tmp_path, "importer", importer.format("NEW"), dependencies=["base"])
        await answers(host, "importer", 2)
        await answers(host, "base", 2)
        assert host.manager.reload_errors == {}
        write_plugin(tmp_path, "importer", importer.format("NEWER"), dependencies=["base"])
        await until(lambda: "importer" in host.manager.reload_errors)
        write_plugin(tmp_path, "base", "NEWER = 3\n" + version(3))
        await answers(host, "importer", 3)
        assert host.manager.reload_errors == {}


async def test_what_failed_at_the_start_recovers_with_what_it_imports(tmp_path: Path) -> None:
    """The dependant failed because of the other one's code, and needs no save of its own."""
    write_plugin(tmp_path, "base", version(1))
    importer = "from ..base.manifest import NEW\n@router.get('/version')\ndef version() -> int: return NEW"
    write_plugin(tmp_path, "importer", importer, dependencies=["base"])
    async with plugin_host(tmp_path) as host, watch_plugins(host.manager, settle=0.05):
        host.assert_state("importer", PluginState.FAILED)
        write_plugin(tmp_path, "base", "NEW = 2\n" + version(2))
        await answers(host, "importer", 2)


async def test_code_that_raises_what_nobody_expects_does_not_end_the_watch(tmp_path: Path) -> None:
    """A router that FastAPI refuses is an error like any other."""
    write_plugin(tmp_path, "quest", version(1))
    async with plugin_host(tmp_path) as host, watch_plugins(host.manager, settle=0.05):
        write_plugin(tmp_path, "quest", version(2), prefix="no-slash")
        await until(lambda: "quest" in host.manager.reload_errors)
        assert (await host.client.get("/api/v1/quest/version")).json() == 1
        write_plugin(tmp_path, "quest", version(3))
        await answers(host, "quest", 3)


async def test_what_is_off_stays_off_in_silence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Saving a disabled plugin neither starts it nor is an error."""
    write_plugin(tmp_path, "quest", version(1))
    async with plugin_host(tmp_path, disabled=["quest"]) as host, watch_plugins(host.manager, settle=0.01):
        write_plugin(tmp_path, "quest", version(2))
        await asyncio.sleep(0.3)
        host.assert_state("quest", PluginState.DISABLED)
        assert errors(caplog) == []
        assert host.manager.reload_errors == {}


async def test_what_is_none_of_a_plugins_files_changes_nothing(tmp_path: Path) -> None:
    """Compiled code, an editor's own files, and files beside the folders."""
    folder = write_plugin(tmp_path, "quest", version(1))
    async with plugin_host(tmp_path) as host, watch_plugins(host.manager):
        (tmp_path / "README.md").write_text("about these plugins")
        for name in (".manifest.py.swp", "manifest.py~", "4913", "#manifest.py#", "x.pyc", ".#manifest.py"):
            (folder / name).write_text("x")
        (folder / ".git").mkdir()
        (folder / ".git" / "index").write_text("x")
        await asyncio.sleep(0.2)
        assert host.record("quest").generation == 1


def test_ignored_names() -> None:
    """Names decide: hidden, compiled, temporary."""
    assert all(map(is_ignored, (".git", "__pycache__", "a.pyc", "a.py~", "a.py___jb_tmp___", "a.swp")))
    assert not any(map(is_ignored, ("manifest.py", "__init__.py", "data.json", "templates")))


def test_fingerprints_tell_states_apart(tmp_path: Path) -> None:
    """A save, a new file and a deletion show; what is ignored does not; no plugin, no fingerprint."""
    folder = write_plugin(tmp_path, "quest")
    seen = [fingerprint(folder)]
    (folder / "asset.txt").write_text("x")
    seen.append(fingerprint(folder))
    (folder / "asset.txt").write_text("xy")
    seen.append(fingerprint(folder))
    (folder / ".hidden").write_text("x")
    assert fingerprint(folder) == seen[-1]
    assert len(set(seen)) == 3
    assert fingerprint(tmp_path / "nowhere") == frozenset()
    (folder / "dangling").symlink_to(tmp_path / "nowhere")
    assert fingerprint(folder) == seen[-1]


async def test_without_watchfiles_the_reason_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the package and how to get it."""
    real = builtins.__import__

    def fake(name: str, *args: Any, **options: Any) -> Any:
        if name == "watchfiles":
            raise ImportError(name)
        return real(name, *args, **options)

    async with plugin_host(tmp_path) as host:
        monkeypatch.setattr(builtins, "__import__", fake)
        with pytest.raises(ConfigurationError, match="needs the package `watchfiles`: `pip install watchfiles`"):
            async with watch_plugins(host.manager):
                pass


async def test_a_directory_that_is_gone_cannot_be_watched(tmp_path: Path) -> None:
    """That is an error at once, not silence."""
    (tmp_path / "plugins").mkdir()
    async with plugin_host(tmp_path / "plugins") as host:
        shutil.rmtree(tmp_path / "plugins")
        with pytest.raises(ConfigurationError, match="cannot watch"):
            async with watch_plugins(host.manager):
                pass


async def test_several_workers_cannot_reload(tmp_path: Path) -> None:
    """Each would have to; so it is refused with the way out."""
    async with plugin_host(tmp_path, allow_live_changes=False) as host:
        with pytest.raises(ConfigurationError, match="set WORKERS=1"):
            async with watch_plugins(host.manager):
                pass


async def test_the_platform_itself_does_not_import_watchfiles() -> None:
    """Only who watches needs it."""
    script = "import sys, pixsim7_backend.infrastructure.plugins; sys.exit('watchfiles' in sys.modules)"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    assert await process.wait() == 0


async def test_operators_see_what_is_not_live(tmp_path: Path) -> None:
    """The description that the admin API and the command line show holds the error, under a new version."""
    write_plugin(tmp_path, "quest", version(1))
    async with plugin_host(tmp_path) as host, watch_plugins(host.manager, settle=0.05):
        before = host.manager.describe("quest")
        assert before["reload_error"] is None
        write_plugin(tmp_path, "quest", version(2, "def broken(:"))
        await until(lambda: "quest" in host.manager.reload_errors)
        seen = host.manager.describe("quest")
        assert "syntax error" in seen["reload_error"]["message"]
        assert (seen["state"], seen["generation"]) == ("enabled", 1)
        assert seen["record_version"] > before["record_version"]


def branch(directory: Path, number: int) -> None:
    """Write five plugins as one branch of a repository has them: names, dependencies and folders differ."""
    aside = Path(tempfile.mkdtemp(dir=directory.parent))
    for path in directory.iterdir():
        path.rename(aside / path.name)  # at once: what is imported meanwhile writes compiled files into it
    shutil.rmtree(aside, ignore_errors=True)
    write_plugin(directory, "base", f"NAME_{number} = {number}\n" + version(number), version=f"{number}.0.0")
    needs = [f"base>={number},<{number + 1}", f"only-{number}"]
    imports = f"from ..base.manifest import NAME_{number}\nfrom ..only_{number}.manifest import ONLY\n"
    for plugin in ("alpha", "omega"):
        write_plugin(directory, plugin, imports + version(number), dependencies=needs)
    write_plugin(directory, f"only-{number}", "ONLY = 1\n" + version(number), dependencies=["base"])
    write_plugin(directory, "top", "from ..omega.manifest import NAME_" + f"{number}\n" + version(number),
                 dependencies=["omega"])  # fmt: skip


async def test_a_whole_branch_may_change_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Names, version ranges, dependencies and folders change together, there and back: all of it is live in the end."""
    branch(tmp_path, 1)
    async with plugin_host(tmp_path) as host, watch_plugins(host.manager, settle=0.6):
        for number in (2, 1, 2):
            branch(tmp_path, number)
            for plugin in ("base", "alpha", "omega", "top", f"only-{number}"):
                await answers(host, plugin, number)
            await until(lambda gone=f"only-{3 - number}": host.record(gone).state is PluginState.REMOVED)
            await until(lambda: host.manager.reload_errors == {})
    assert [record.getMessage() for record in errors(caplog)] == []


async def test_folders_that_are_links_are_followed(tmp_path: Path) -> None:
    """A plugin that lives elsewhere and is linked into the directory, and a directory that is a link itself."""
    real = write_plugin(tmp_path / "elsewhere", "quest", version(1))
    (tmp_path / "real").mkdir()
    (tmp_path / "plugins").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "quest").symlink_to(real)
    async with plugin_host(tmp_path / "plugins") as host, watch_plugins(host.manager):
        write_plugin(tmp_path / "plugins", "guild", version(1))
        await answers(host, "guild", 1)
        write_plugin(tmp_path / "elsewhere", "quest", version(2))
        await answers(host, "quest", 2)


async def test_times_and_sizes_may_lie(tmp_path: Path) -> None:
    """Other content of the same size under the same time is noticed, and so is a file from the future."""
    folder = write_plugin(tmp_path, "quest", version(1))
    file = folder / "manifest.py"
    async with plugin_host(tmp_path) as host, watch_plugins(host.manager):
        before = file.stat()
        file.write_text(file.read_text().replace("VERSION = 1", "VERSION = 2"))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (file.stat().st_mtime_ns, file.stat().st_size) == (before.st_mtime_ns, before.st_size)
        await answers(host, "quest", 2)
        file.write_text(file.read_text().replace("VERSION = 2", "VERSION = 3"))
        os.utime(file, (4e9, 4e9))
        await answers(host, "quest", 3)
        file.write_text(file.read_text().replace("VERSION = 3", "VERSION = 4"))
        await answers(host, "quest", 4)


async def test_a_system_without_room_for_a_watch_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more watchers than the system allows: the error names the settings that decide."""
    async with plugin_host(tmp_path) as host:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = [os.open(os.devnull, os.O_RDONLY) for _ in range(8)]
        for descriptor in used[:-4]:
            os.close(descriptor)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (used[0], hard))
            with pytest.raises(ConfigurationError, match=r"max_user_instances, or set WATCHFILES_FORCE_POLLING=true"):
                async with watch_plugins(host.manager):
                    pass
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for descriptor in used[-4:]:
                os.close(descriptor)
