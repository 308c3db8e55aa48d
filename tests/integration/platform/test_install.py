"""Installing, upgrading, rolling back and removing: from every kind of source, live, and killed at every step."""

from __future__ import annotations

import asyncio
import errno
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Coroutine, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import anyio.to_thread
import pytest

from pixsim7_backend.infrastructure.plugins import PluginManager, PluginState
from pixsim7_backend.infrastructure.plugins._grants.permissions import Grants
from pixsim7_backend.infrastructure.plugins._installing.directory import InstallDirectory
from pixsim7_backend.infrastructure.plugins._installing.install import (
    CHECKPOINTS,
    DataMode,
    Follower,
    Installer,
    Limits,
    PluginData,
    finish_interrupted,
)
from pixsim7_backend.infrastructure.plugins.errors import (
    AlreadyInstalledError,
    ArchiveRefusedError,
    DependantsInstalledError,
    FolderTakenError,
    IdTakenError,
    InstallBusyError,
    InstalledElsewhereError,
    InstallRefusedError,
    InvalidManifestError,
    LiveChangesRefusedError,
    MemberRefusedError,
    NoFormerVersionError,
    NotRemovableError,
    PluginError,
    PluginNotFoundError,
    RolledBackError,
    TablesAheadError,
)
from pixsim7_backend.infrastructure.plugins.preview import preview
from pixsim7_backend.infrastructure.plugins.testing import plugin_host, write_plugin

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]


def answering(number: int) -> str:
    return f"@router.get('/version')\nasync def version() -> int: return {number}"


def offer(place: Path, number: int = 1, code: str = "", **fields: Any) -> Path:
    """Write a plugin to install, outside of any plugin directory; return its folder."""
    return write_plugin(
        place / f"offer{number}", "quest", answering(number) + "\n" + code, version=f"{number}.0.0", **fields
    )


class Recorded(PluginData):
    """Data of plugins that only notes what is done with it; optionally fails."""

    def __init__(self, problem: str = "") -> None:
        self.calls: list[tuple[str, ...]] = []
        self.stands_at: str | None = None
        self.too_old: tuple[str, ...] = ()
        self._problem = problem

    def revision(self, plugin_id: str, installed_as: str) -> str | None:
        return self.stands_at

    def pending(self, plugin_id: str, folder: Path, installed_as: str, *, version: str) -> tuple[str, ...]:
        assert (folder / "manifest.py").is_file()
        if version in self.too_old:
            raise TablesAheadError(plugin=plugin_id, version=version, revision="0002")
        return ()

    def downgrade(self, plugin_id: str, folder: Path, revision: str | None) -> None:
        self.calls.append(("downgrade", plugin_id, str(revision)))

    def export(self, plugin_id: str, folder: Path) -> Path | None:
        assert (folder / "manifest.py").is_file()
        self.calls.append(("export", plugin_id, folder.name))
        if self._problem:
            raise PluginError(self._problem, plugin=plugin_id)
        return Path("exported.zip")

    def drop(self, plugin_id: str, folder: Path) -> None:
        assert (folder / "manifest.py").is_file()
        self.calls.append(("drop", plugin_id, folder.name))


class Followed(Follower):
    """What follows where no server runs; it only notes what it is told."""

    is_live = False

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def refresh(self, plugin_id: str, folder: Path, grant: Collection[str] | None = None) -> None:
        self.calls.append(("refresh", plugin_id))

    def withdraw(self, plugin_id: str, *, cascade: bool) -> None:
        self.calls.append(("withdraw", plugin_id))

    def revoke(self, plugin_id: str) -> None:
        self.calls.append(("revoke", plugin_id))

    def forget(self, plugin_id: str) -> None:
        self.calls.append(("forget", plugin_id))


def make_installer(into: Path, *more: Path, **options: Any) -> Installer:
    """Return an installer for a directory; ``more`` are searched, too."""
    directories = [into, *more]

    def plan(revise: Any, grants: Mapping[str, Grants] = MappingProxyType({}), /) -> Any:
        existing = [each for each in directories if each.exists()]
        return preview(existing, disabled=(), resources={"db": lambda: None}, revise=revise)

    return Installer(into, make_plan=plan, **{"follower": Followed(), "stored": Recorded(), **options})


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """An empty plugin directory."""
    directory = tmp_path / "plugins"
    directory.mkdir()
    return directory


def visible(directory: Path) -> dict[str, str]:
    """Return the files of the plugins in a directory, without those of the installer."""
    return {
        each.relative_to(directory).as_posix(): each.read_text()
        for each in sorted(directory.rglob("*"))
        if each.is_file() and ".pixsim7" not in each.parts and each.suffix != ".pyc"
    }


def version_in(directory: Path) -> str:
    text = (directory / "quest" / "manifest.py").read_text()
    return text.partition("version='")[2].partition("'")[0]


# --- sources --------------------------------------------------------------------------------------


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
    )


def packed(folder: Path, kind: str) -> Path:
    """Return the plugin's folder in a form that can be added."""
    if kind == "folder":
        return folder
    if kind == "checkout":
        git(folder, "init", "-q")
        git(folder, "add", "-A")
        git(folder, "commit", "-qm", "first")
        return folder
    layout, _, form = kind.partition("-")
    base = folder if layout == "flat" else folder.parent
    return Path(shutil.make_archive(str(folder.parent.parent / "packed"), form, base))


KINDS = [
    "folder",
    "checkout",
    *(f"{layout}-{form}" for layout in ("flat", "nested") for form in ("zip", "tar", "gztar", "bztar", "xztar")),
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_is_installed_whole(kind: str, plugins: Path, tmp_path: Path) -> None:
    """The files are the same, whatever they came in; the receipt says from where."""
    folder = offer(tmp_path, permissions=["db:read"])
    (folder / "static").mkdir()
    (folder / "static" / "größe.txt").write_text("x" * 100_000)
    expected = {f"quest/{name}": text for name, text in visible(folder).items()}
    source = packed(folder, kind)
    done = make_installer(plugins).add(source)
    assert visible(plugins) == expected
    assert (done.action, done.plugin, done.version, done.former_version) == ("add", "quest", "1.0.0", None)
    assert (done.starts, done.permissions, done.held, done.will_run) == (("quest",), ("db:read",), {}, True)
    receipt = InstallDirectory(plugins).read_receipt("quest")
    assert (receipt["version"], receipt["from"]) == ("1.0.0", str(source))
    assert (plugins / "quest").stat().st_mode & 0o777 == 0o755
    assert list((plugins / ".pixsim7" / "staging").iterdir()) == []


def test_the_folder_is_named_after_the_id(plugins: Path, tmp_path: Path) -> None:
    """However the source is called."""
    folder = offer(tmp_path).rename(tmp_path / "whatever-1.0")
    make_installer(plugins).add(folder)
    assert (plugins / "quest" / "manifest.py").is_file()


def test_a_dry_run_changes_nothing(plugins: Path, tmp_path: Path) -> None:
    """It says what would start and what is held, and leaves no trace, not even where there is no directory yet."""
    source = offer(tmp_path, dependencies=["nobody"])
    done = make_installer(plugins).preview_add(source)
    assert done.is_dry_run
    assert (done.starts, done.will_run) == ((), False)
    assert done.held == {"quest": "plugin 'quest' requires 'nobody', which is not installed"}
    assert list(plugins.iterdir()) == []
    make_installer(tmp_path / "new").preview_add(source)
    assert not (tmp_path / "new").exists()
    json.dumps(done.to_json())


def test_what_it_was_waiting_for_starts_too(plugins: Path, tmp_path: Path) -> None:
    """The plan shows plugins that only waited for this one."""
    write_plugin(plugins, "waiting", dependencies=["quest"])
    assert make_installer(plugins).add(offer(tmp_path)).starts == ("quest", "waiting")


@pytest.mark.parametrize("linked", ["file", "folder", "pipe"])
def test_links_in_a_folder_are_refused(linked: str, plugins: Path, tmp_path: Path) -> None:
    """A folder is held to the rules of an archive."""
    folder = offer(tmp_path)
    if linked == "pipe":
        import os

        os.mkfifo(folder / "x")
    else:
        (folder / "x").symlink_to("/etc/passwd" if linked == "file" else "/etc")
    with pytest.raises(MemberRefusedError, match=r"'x' is a (symbolic link|device, pipe or socket)"):
        make_installer(plugins).add(folder)
    assert visible(plugins) == {}


NOT_PLUGINS = {
    "empty": ({}, "holds no manifest.py at its top, nor one folder with one (it holds nothing)"),
    "two": ({"a/manifest.py": "", "b/manifest.py": ""}, "(it holds 'a', 'b')"),
    "deep": ({"a/b/manifest.py": ""}, "(it holds 'a')"),
}


@pytest.mark.parametrize("case", NOT_PLUGINS)
def test_what_is_no_plugin_is_refused(case: str, plugins: Path, tmp_path: Path) -> None:
    """There is one plugin at the top or in the only folder; else what was found is listed."""
    files, reason = NOT_PLUGINS[case]
    for name, text in files.items():
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_text(text)
    (tmp_path / "source").mkdir(exist_ok=True)
    with pytest.raises(ArchiveRefusedError) as refused:
        make_installer(plugins).add(tmp_path / "source")
    assert reason in str(refused.value)


def test_a_manifest_that_must_be_run_is_refused(plugins: Path, tmp_path: Path) -> None:
    """What is installed is known before any of it runs."""
    folder = offer(tmp_path)
    (folder / "manifest.py").write_text("raise SystemExit('run')\nmanifest = make()\n")
    with pytest.raises(InvalidManifestError, match="nothing is run to find out what is installed"):
        make_installer(plugins).add(folder)


def test_places_that_cannot_be_installed_from(plugins: Path, tmp_path: Path) -> None:
    """What is not there, and what lies in the plugin directory already, is refused without a trace."""
    with pytest.raises(ArchiveRefusedError, match="does not exist"):
        make_installer(plugins).add(tmp_path / "nothing")
    assert list(plugins.iterdir()) == []
    with pytest.raises(ArchiveRefusedError, match="lies in the plugin directory"):
        make_installer(plugins).add(write_plugin(plugins, "quest"))


def test_places_that_are_taken(plugins: Path, tmp_path: Path) -> None:
    """A plugin elsewhere, another thing in its folder, and a plugin that is there are told apart."""
    other = tmp_path / "other"
    write_plugin(other, "quest")
    with pytest.raises(InstalledElsewhereError):
        make_installer(plugins, other).add(offer(tmp_path))
    (plugins / "quest").mkdir()
    with pytest.raises(FolderTakenError):
        make_installer(plugins).add(offer(tmp_path))
    (plugins / "quest").rmdir()
    make_installer(plugins).add(offer(tmp_path))
    with pytest.raises(AlreadyInstalledError, match=r"add `--upgrade` to replace it by version 2\.0\.0"):
        make_installer(plugins).add(offer(tmp_path, 2))


def test_limits_are_settings(plugins: Path, tmp_path: Path) -> None:
    """They hold for folders as well."""
    with pytest.raises(MemberRefusedError, match="is larger than 10 bytes"):
        make_installer(plugins, limits=Limits(file_bytes=10)).add(offer(tmp_path))


# --- git ------------------------------------------------------------------------------------------


def test_only_what_is_committed_is_taken(plugins: Path, tmp_path: Path) -> None:
    """Ignored files stay out; other changes are refused by name, or left out when asked."""
    folder = offer(tmp_path)
    (folder / ".gitignore").write_text("secret.env\n")
    packed(folder, "checkout")
    (folder / "secret.env").write_text("password")
    make_installer(plugins).add(folder)
    assert sorted(visible(plugins)) == ["quest/.gitignore", "quest/__init__.py", "quest/manifest.py"]
    for change in ("untracked", "changed", "deleted"):
        if change == "untracked":
            (folder / "new.py").write_text("")
        elif change == "changed":
            (folder / "new.py").unlink()
            (folder / "__init__.py").write_text("changed")
        else:
            (folder / "__init__.py").unlink()
        with pytest.raises(ArchiveRefusedError, match=r"has changes that are not committed \('(new|__init__).py'\)"):
            make_installer(plugins).add(folder, upgrade=True)
        make_installer(plugins).add(folder, upgrade=True, allow_dirty=True)
        assert visible(plugins)["quest/__init__.py"] == "from .manifest import manifest, router\n"


def test_nothing_that_a_checkout_configures_is_run(plugins: Path, tmp_path: Path) -> None:
    """Hooks, filters, watchers and transports of an untrusted checkout stay silent."""
    folder = offer(tmp_path)
    (folder / ".gitattributes").write_text("*.py filter=evil diff=evil export-subst\n")
    packed(folder, "checkout")
    evil = f"touch {tmp_path / 'evil'} #"
    for key in ("filter.evil.smudge", "filter.evil.clean", "core.fsmonitor", "core.sshCommand", "diff.evil.textconv",
                "core.pager", "core.editor", "diff.external", "tar.tar.command"):  # fmt: skip
        git(folder, "config", key, evil)
    (folder / ".git" / "hooks").mkdir(exist_ok=True)
    for name in ("post-checkout", "post-index-change", "fsmonitor-watchman"):
        (folder / ".git" / "hooks" / name).write_text(f"#!/bin/sh\n{evil}\n")
        (folder / ".git" / "hooks" / name).chmod(0o755)
    make_installer(plugins).add(folder)
    assert not (tmp_path / "evil").exists()


def test_links_and_submodules_of_a_checkout_are_refused(plugins: Path, tmp_path: Path) -> None:
    """They would lead out of the plugin."""
    folder = offer(tmp_path)
    (folder / "link").symlink_to("/etc/passwd")
    packed(folder, "checkout")
    with pytest.raises(MemberRefusedError, match="'link' is a symbolic link"):
        make_installer(plugins).add(folder)
    git(folder, "rm", "-q", "link")
    git(folder, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
    git(folder, "commit", "-qm", "second")
    with pytest.raises(MemberRefusedError, match="'sub' is a submodule"):
        make_installer(plugins).add(folder)


def test_a_checkout_that_git_cannot_read(plugins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout without a commit, and a machine without git, are told in a sentence."""
    folder = offer(tmp_path)
    git(folder, "init", "-q")
    with pytest.raises(ArchiveRefusedError, match="cannot be read by git: "):
        make_installer(plugins).add(folder)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ArchiveRefusedError, match="git is not installed"):
        make_installer(plugins).add(folder)


# --- upgrading ------------------------------------------------------------------------------------


def test_an_upgrade_keeps_one_former_version_to_roll_back_to(plugins: Path, tmp_path: Path) -> None:
    """Rolling back exchanges the two, so that it can be undone; what is new about permissions is shown."""
    installer = make_installer(plugins)
    installer.add(offer(tmp_path, 1, permissions=["db:read"]))
    done = installer.add(offer(tmp_path, 2, permissions=["db:read", "db:write"]), upgrade=True)
    assert (done.action, done.former_version, done.new_permissions) == ("upgrade", "1.0.0", ("db:write",))
    installer.add(offer(tmp_path, 3), upgrade=True)
    assert [len(list(each.iterdir())) for each in (plugins / ".pixsim7" / "former").iterdir()] == [1]
    assert installer.preview_roll_back("quest").version == "2.0.0"
    assert version_in(plugins) == "3.0.0"
    assert installer.roll_back("quest").version == "2.0.0"
    assert version_in(plugins) == "2.0.0"
    assert installer.roll_back("quest").version == "3.0.0"
    assert version_in(plugins) == "3.0.0"
    assert list(preview([plugins], disabled=()).candidates) == ["quest"]
    with pytest.raises(NoFormerVersionError):
        make_installer(plugins.parent / "other", plugins).roll_back("quest")
    for name in ("another", "..", "../staging", ""):
        with pytest.raises(PluginNotFoundError):
            installer.roll_back(name)


def test_an_upgrade_that_would_stop_others_is_refused(plugins: Path, tmp_path: Path) -> None:
    """A dependant that does not accept the new version is named."""
    installer = make_installer(plugins)
    installer.add(offer(tmp_path, 1))
    write_plugin(plugins, "needs", dependencies=["quest<2"])
    with pytest.raises(InstallRefusedError, match="since needs would stop"):
        installer.add(offer(tmp_path, 2), upgrade=True)
    assert version_in(plugins) == "1.0.0"


def test_versions_that_the_tables_are_too_new_for_are_refused(plugins: Path, tmp_path: Path) -> None:
    """Rolling back past a migration, and installing an older version, are refused before a file moves."""
    stored = Recorded()
    installer = make_installer(plugins, stored=stored)
    for number in (1, 2):
        installer.add(offer(tmp_path, number), upgrade=True)
    stored.too_old = ("1.0.0",)
    for act in (installer.preview_roll_back, installer.roll_back):
        with pytest.raises(TablesAheadError, match="its tables stand at revision '0002', which that version does not"):
            act("quest")
    with pytest.raises(TablesAheadError):
        installer.preview_add(offer(tmp_path, 1), upgrade=True)
    assert version_in(plugins) == "2.0.0"


def test_what_an_upgrade_is_called(plugins: Path, tmp_path: Path) -> None:
    """Going back to an older version, and other files of the same version, are told apart from going forward."""
    installer = make_installer(plugins)
    installer.add(offer(tmp_path, 1))
    assert installer.add(offer(tmp_path, 2), upgrade=True).action == "upgrade"
    (offer(tmp_path, 2) / "more.py").write_text("")
    assert installer.add(tmp_path / "offer2" / "quest", upgrade=True).action == "replace"
    assert (plugins / "quest" / "more.py").exists()
    assert installer.add(offer(tmp_path, 1), upgrade=True).action == "downgrade"


def test_the_backends_own_plugins_are_not_replaced(plugins: Path, tmp_path: Path) -> None:
    """Neither from beside them nor in their place."""
    backend = ROOT / "pixsim7_backend" / "plugins"
    source = write_plugin(tmp_path / "offered", "game-stealth")
    with pytest.raises(IdTakenError, match=r"comes with the backend .* give yours another id"):
        make_installer(plugins, backend).add(source)
    with pytest.raises(IdTakenError):
        make_installer(backend).preview_add(source, upgrade=True)


def test_two_commands_do_not_work_in_one_directory(plugins: Path, tmp_path: Path) -> None:
    """The second one is refused at once."""
    source = offer(tmp_path)

    def second(step: str) -> None:
        if step == "staged":
            with pytest.raises(InstallBusyError):
                make_installer(plugins).add(source)

    make_installer(plugins, checkpoint=second).add(source)


# --- removing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", DataMode)
def test_removing_does_with_the_data_what_was_asked(mode: DataMode, plugins: Path, tmp_path: Path) -> None:
    """The plugin's files are gone, with everything that was kept of them."""
    stored, followed = Recorded(), Followed()
    installer = make_installer(plugins, stored=stored, follower=followed)
    installer.add(offer(tmp_path, 1))
    installer.add(offer(tmp_path, 2), upgrade=True)
    followed.calls.clear()
    assert installer.preview_remove("quest", data=mode).is_dry_run
    assert stored.calls == []
    done = installer.remove("Quest", data=mode)
    assert visible(plugins) == {}
    assert [each.name for each in (plugins / ".pixsim7").rglob("*") if each.is_file()] == ["lock"]
    assert stored.calls == ([] if mode is DataMode.KEEP else [(str(mode), "quest", "quest")])
    assert followed.calls == [("withdraw", "quest"), *([("forget", "quest")] if mode is DataMode.DROP else [])]
    assert done.exported_to == (Path("exported.zip") if mode is DataMode.EXPORT else None)
    json.dumps(done.to_json())


def test_a_plugin_that_others_need_is_not_removed(plugins: Path, tmp_path: Path) -> None:
    """They are listed; with cascade they stop and stay."""
    installer = make_installer(plugins)
    installer.add(offer(tmp_path))
    write_plugin(plugins, "needs", dependencies=["quest"])
    write_plugin(plugins, "more", dependencies=["needs"])
    with pytest.raises(DependantsInstalledError, match=r"needed by more, needs; remove them first, or add `--cascade`"):
        installer.remove("quest", data=DataMode.KEEP)
    done = installer.remove("quest", data=DataMode.KEEP, cascade=True)
    assert done.stops == ("more", "needs", "quest")
    assert sorted(each.name for each in plugins.iterdir()) == [".pixsim7", "more", "needs"]


def test_what_cannot_be_removed(plugins: Path, tmp_path: Path) -> None:
    """Unknown plugins, and those of the backend itself, stay as they are."""
    with pytest.raises(PluginNotFoundError):
        make_installer(plugins).remove("quest", data=DataMode.KEEP)
    backend = ROOT / "pixsim7_backend" / "plugins"
    with pytest.raises(NotRemovableError, match="belongs to the backend itself"):
        make_installer(backend).preview_remove("game-stealth", data=DataMode.KEEP)


def test_a_failed_export_leaves_the_plugin_there(plugins: Path, tmp_path: Path) -> None:
    """Nothing is deleted before what was asked for is done."""
    installer = make_installer(plugins, stored=Recorded("disk full"))
    installer.add(offer(tmp_path))
    before = visible(plugins)
    with pytest.raises(PluginError, match="disk full"):
        installer.remove("quest", data=DataMode.EXPORT)
    assert visible(plugins) == before


# --- on a running server ----------------------------------------------------------------------------


class InProcess(Follower):
    """A server in this process, asked from another thread."""

    is_live = True

    def __init__(self, manager: PluginManager) -> None:
        self._manager = manager
        self._loop = asyncio.get_running_loop()
        self.forgotten: list[str] = []

    def _wait(self, change: Coroutine[Any, Any, object]) -> None:
        assert threading.current_thread() is not threading.main_thread()
        asyncio.run_coroutine_threadsafe(change, self._loop).result(30)

    def refresh(self, plugin_id: str, folder: Path, grant: Collection[str] | None = None) -> None:
        self._wait(self._manager.refresh(folder))

    def withdraw(self, plugin_id: str, *, cascade: bool) -> None:
        self._wait(self._manager.withdraw(plugin_id, cascade=cascade))

    def revoke(self, plugin_id: str) -> None:
        self._wait(self._manager.desired.revoke(plugin_id))

    def forget(self, plugin_id: str) -> None:
        self.forgotten.append(plugin_id)


async def test_a_running_server_follows(plugins: Path, tmp_path: Path) -> None:
    """Added, upgraded, rolled back and removed while it serves; the answers change with the files."""
    async with plugin_host(plugins) as host:
        live = InProcess(host.manager)
        installer = make_installer(plugins, follower=live, stored=Recorded())

        async def answers() -> object:
            answer = await host.client.get("/api/v1/quest/version")
            return answer.json() if answer.status_code == 200 else answer.status_code

        assert await answers() == 404
        done = await anyio.to_thread.run_sync(lambda: installer.add(offer(tmp_path, 1)))
        assert done.is_live
        assert await answers() == 1
        await anyio.to_thread.run_sync(lambda: installer.add(offer(tmp_path, 2), upgrade=True))
        assert await answers() == 2
        await anyio.to_thread.run_sync(lambda: installer.roll_back("quest"))
        assert await answers() == 1
        await anyio.to_thread.run_sync(lambda: installer.remove("quest", data=DataMode.DROP))
        assert await answers() == 404
        assert live.forgotten == ["quest"]
        host.assert_state("quest", PluginState.REMOVED)


BROKEN = {
    "import": "import no_such_module",
    "on_load": "def on_load(app): raise RuntimeError('no')",
    "on_enable": "async def on_enable(): raise RuntimeError('no')",
}


@pytest.mark.parametrize("case", BROKEN)
async def test_new_code_that_fails_is_taken_back(case: str, plugins: Path, tmp_path: Path) -> None:
    """The old version serves and is what lies on disk; a plugin that was new is gone again."""
    async with plugin_host(plugins) as host:
        stored = Recorded()
        installer = make_installer(plugins, follower=InProcess(host.manager), stored=stored)
        with pytest.raises(RolledBackError):
            await anyio.to_thread.run_sync(lambda: installer.add(offer(tmp_path, 3, BROKEN[case])))
        assert visible(plugins) == {}
        await anyio.to_thread.run_sync(lambda: installer.add(offer(tmp_path, 1)))
        await anyio.to_thread.run_sync(lambda: installer.add(offer(tmp_path, 2), upgrade=True))
        before = visible(plugins)
        with pytest.raises(RolledBackError, match=r"version 4\.0\.0 of plugin 'quest' was taken back"):
            await anyio.to_thread.run_sync(lambda: installer.add(offer(tmp_path, 4, BROKEN[case]), upgrade=True))
        assert visible(plugins) == before
        assert (await host.client.get("/api/v1/quest/version")).json() == 2
        host.assert_state("quest", PluginState.ENABLED)
        assert (await anyio.to_thread.run_sync(lambda: installer.preview_roll_back("quest"))).version == "1.0.0"
        assert stored.calls == []


async def test_tables_that_the_failed_version_migrated_are_taken_back(plugins: Path, tmp_path: Path) -> None:
    """The old code finds the tables as it knows them."""
    stored = Recorded()
    async with plugin_host(
        plugins, prepare=lambda record, _folder: setattr(stored, "stands_at", record.version)
    ) as host:
        installer = make_installer(plugins, follower=InProcess(host.manager), stored=stored)
        await anyio.to_thread.run_sync(lambda: installer.add(offer(tmp_path, 1)))
        stored.stands_at = "0001"
        broken = offer(tmp_path, 2, BROKEN["on_enable"])
        with pytest.raises(RolledBackError):
            await anyio.to_thread.run_sync(lambda: installer.add(broken, upgrade=True))
        assert stored.calls == [("downgrade", "quest", "0001")]


async def test_a_plugin_that_the_plan_holds_back_is_installed_nevertheless(plugins: Path, tmp_path: Path) -> None:
    """It was said before, and it starts when what it waits for comes."""
    async with plugin_host(plugins) as host:
        installer = make_installer(plugins, follower=InProcess(host.manager))
        done = await anyio.to_thread.run_sync(lambda: installer.add(offer(tmp_path, 1, dependencies=["base"])))
        assert (done.will_run, done.is_live) == (False, False)
        host.assert_state("quest", PluginState.BLOCKED)
        base = write_plugin(tmp_path / "base", "base")
        done = await anyio.to_thread.run_sync(lambda: installer.add(base))
        assert done.starts == ("base", "quest")
        host.assert_state("quest", PluginState.ENABLED)


async def test_a_server_that_refuses_live_changes_keeps_its_files(plugins: Path, tmp_path: Path) -> None:
    """Several workers cannot follow; nothing is changed under them."""

    class Refusing(InProcess):
        def refresh(self, plugin_id: str, folder: Path, grant: Collection[str] | None = None) -> None:
            raise LiveChangesRefusedError(plugin="quest")

    async with plugin_host(plugins) as host:
        installer = make_installer(plugins, follower=Refusing(host.manager))
        with pytest.raises(RolledBackError, match="WORKERS"):
            await anyio.to_thread.run_sync(lambda: installer.add(offer(tmp_path, 1)))
        assert visible(plugins) == {}


async def test_a_removal_that_fails_starts_the_plugin_again(plugins: Path, tmp_path: Path) -> None:
    """It serves as before, with its dependants."""
    make_installer(plugins).add(offer(tmp_path, 1))
    write_plugin(plugins, "needs", dependencies=["quest"])
    async with plugin_host(plugins) as host:
        installer = make_installer(plugins, follower=InProcess(host.manager), stored=Recorded("disk full"))
        with pytest.raises(PluginError, match="disk full"):
            await anyio.to_thread.run_sync(lambda: installer.remove("quest", data=DataMode.EXPORT, cascade=True))
        assert (await host.client.get("/api/v1/quest/version")).json() == 1
        host.assert_state("needs", PluginState.ENABLED)


# --- killed -----------------------------------------------------------------------------------------

_SCRIPT = """
import json, os, signal, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.integration.platform.test_install import Recorded, make_installer
from pixsim7_backend.infrastructure.plugins._installing.install import DataMode

def install(what, step, plugins, source, mode):
    def reached(name):
        if name == step:
            os.kill(os.getpid(), signal.SIGKILL)
    installer = make_installer(Path(plugins), checkpoint=reached, stored=Recorded())
    if what == "remove":
        installer.remove("quest", data=DataMode(mode))
    elif what == "rollback":
        installer.roll_back("quest")
    else:
        installer.add(Path(source), upgrade=what == "upgrade")

for line in sys.stdin:
    child = os.fork()
    if not child:
        sys.exit(install(*json.loads(line)))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class KilledAt(Protocol):
    """Does it in a process of its own that is killed when it reaches a step."""

    def __call__(self, what: str, step: str, plugins: Path, source: Path, mode: str = "keep") -> None: ...


@pytest.fixture(scope="module")
def killed_at() -> Iterator[KilledAt]:
    """All of them are forked from one process, which imports the platform once."""
    command = [sys.executable, "-c", _SCRIPT.format(root=str(ROOT))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        to, of = process.stdin, process.stdout

        def run(what: str, step: str, plugins: Path, source: Path, mode: str = "keep") -> None:
            to.write(json.dumps([what, step, str(plugins), str(source), mode]) + "\n")
            to.flush()
            assert of.readline() == f"{-signal.SIGKILL}\n", f"{step} was not reached"

        yield run
        to.close()


STEPS = [
    *(("add", step, "keep") for step in CHECKPOINTS["add"]),
    *(("upgrade", step, "keep") for step in CHECKPOINTS["upgrade"]),
    *(("rollback", step, "keep") for step in CHECKPOINTS["upgrade"]),
    *(("remove", step, "export" if step == "exported" else "drop") for step in CHECKPOINTS["remove"]),
]


@pytest.mark.parametrize(("what", "step", "mode"), STEPS, ids=["-".join(each[:2]) for each in STEPS])
def test_a_kill_leaves_the_old_or_the_new_whole(
    what: str, step: str, mode: str, *, plugins: Path, tmp_path: Path, killed_at: KilledAt
) -> None:
    """After the next start the files are those before or those after, and the command can be given again."""
    installer = make_installer(plugins, stored=Recorded())
    source = offer(tmp_path, 1)
    (source / "more.py").write_text("# one\n" * 1000)
    states = [visible(plugins)]
    if what != "add":
        installer.add(source)
        states = [visible(plugins)]
        source = offer(tmp_path, 2)
        (source / "more.py").write_text("# two\n" * 2000)
    if what == "rollback":
        installer.add(source, upgrade=True)
        states.insert(0, visible(plugins))
    elif what == "remove":
        states.append({})
    else:
        states.append({f"quest/{name}": text for name, text in visible(source).items()})
    killed_at(what, step, plugins, source, mode)
    finish_interrupted([plugins])
    assert visible(plugins) in states
    is_new = visible(plugins) == states[-1]
    if what == "add" and is_new:
        return
    if what == "remove":
        if not is_new:
            installer.remove("quest", data=DataMode(mode))
    elif what == "rollback":
        if not is_new:
            installer.roll_back("quest")
    else:
        installer.add(source, upgrade=True)
    assert visible(plugins) == states[-1]
    assert not (plugins / ".pixsim7" / "journal").exists()
    assert len(list((plugins / ".pixsim7").glob("former/quest/*"))) <= 1


def test_a_directory_that_cannot_be_put_in_order_stops_no_start(
    plugins: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    killed_at: KilledAt,
) -> None:
    """On a disk that is read-only or full the log says so, and the other plugins start."""
    make_installer(plugins).add(offer(tmp_path, 1))
    killed_at("upgrade", "former-moved-away", plugins, offer(tmp_path, 2))

    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", full)
        finish_interrupted([plugins])
    assert "cannot be undone: [Errno 28] No space left on device" in caplog.text
    finish_interrupted([plugins])
    assert version_in(plugins) == "1.0.0"


async def test_a_server_that_starts_after_a_kill_finds_the_plugin(
    plugins: Path, tmp_path: Path, killed_at: KilledAt
) -> None:
    """Even where the kill left no folder: the start puts it back before it looks for plugins."""
    make_installer(plugins).add(offer(tmp_path, 1))
    killed_at("upgrade", "former-moved-away", plugins, offer(tmp_path, 2))
    assert visible(plugins) == {}
    async with plugin_host(plugins) as host:
        assert (await host.client.get("/api/v1/quest/version")).json() == 1
