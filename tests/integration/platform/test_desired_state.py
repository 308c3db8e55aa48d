"""What the operator switches lasts: over restarts and crashes, beside others who switch, and under DISABLED_PLUGINS."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from pixsim7_backend.infrastructure.plugins import DesiredState, FileStateStore, PluginState, StateStore
from pixsim7_backend.infrastructure.plugins.errors import (
    DependantsEnabledError,
    LiveChangesRefusedError,
    PluginDisabledError,
    PluginError,
    StateConflictError,
    StateFileError,
    StateUnavailableError,
)
from pixsim7_backend.infrastructure.plugins.testing import MemoryStateStore, plugin_host, write_plugin

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """Return a directory with `quest`, and `badge` that needs it, and `extra` that its manifest leaves off."""
    directory = tmp_path / "plugins"
    write_plugin(directory, "quest")
    write_plugin(directory, "badge", dependencies=["quest"])
    write_plugin(directory, "extra", enabled=False)
    return directory


@pytest.fixture
def store(tmp_path: Path) -> FileStateStore:
    """Return the store that each start of a test's server opens."""
    return FileStateStore(tmp_path / "data" / "plugin-state.json")


async def test_a_switch_outlives_the_process(plugins: Path, store: StateStore) -> None:
    """After a restart the plugin that was switched off is off, with what needs it, and the one switched on is on."""
    async with plugin_host(plugins, store=store) as host:
        await host.manager.disable("quest", cascade=True)
        await host.manager.enable("extra")
    async with plugin_host(plugins, store=store) as host:
        record = host.assert_state("quest", PluginState.DISABLED)
        assert str(record.reason) == "plugin 'quest' is disabled by the operator; to use it, enable it"
        host.assert_state("badge", PluginState.BLOCKED)
        host.assert_state("extra", PluginState.ENABLED)
        await host.manager.enable("quest")
        host.assert_state("badge", PluginState.ENABLED)
    async with plugin_host(plugins, store=store) as host:
        host.assert_state("quest", PluginState.ENABLED)


async def test_nothing_is_stored_before_something_is_switched(plugins: Path, store: FileStateStore) -> None:
    """Starting, reloading, previewing and stopping make no file."""
    async with plugin_host(plugins, store=store) as host:
        host.manager.preview_disable("quest")
        await host.manager.reload("quest")
    assert not store.file.exists()


async def test_what_is_refused_is_not_stored(plugins: Path, store: FileStateStore) -> None:
    """A change that cannot be made leaves the desired state as it was."""
    write_plugin(plugins, "lonely", enabled=False, dependencies=["nobody"])
    async with plugin_host(plugins, store=store) as host:
        with pytest.raises(DependantsEnabledError):
            await host.manager.disable("quest")
        with pytest.raises(PluginError, match="'nobody', which is not installed"):
            await host.manager.enable("lonely")
    assert not store.file.exists()


async def test_the_record_shows_what_is_wanted_and_why_it_is_otherwise(plugins: Path) -> None:
    """Wanted by whom, what it is, and the reason where the two differ."""
    write_plugin(plugins, "broken", "def on_enable(): raise ValueError('no luck')", enabled=False)
    async with plugin_host(plugins) as host:

        def shown(plugin: str) -> tuple[object, object, object]:
            view = host.manager.describe(plugin)
            return view["state"], view["desired"], view["why"]

        assert shown("quest") == ("enabled", {"on": True, "by": "manifest"}, None)
        assert shown("extra") == ("disabled", {"on": False, "by": "manifest"}, None)
        with pytest.raises(PluginError):
            await host.manager.enable("broken")
        state, desired, why = shown("broken")
        assert (state, desired) == ("failed", {"on": True, "by": "operator"})
        assert str(why).startswith("on_enable of plugin 'broken' raised ValueError: no luck")
        await host.manager.disable("badge")
        assert shown("badge") == ("disabled", {"on": False, "by": "operator"}, None)


async def test_disabled_plugins_wins_and_says_so(plugins: Path) -> None:
    """What the environment names stays off whatever is stored; switching it on is refused and not stored."""
    store = MemoryStateStore(DesiredState(switched={"quest": True}, version=4))
    async with plugin_host(plugins, store=store, disabled=["quest"]) as host:
        host.assert_state("quest", PluginState.DISABLED)
        view = host.manager.describe("quest")
        assert view["desired"] == {"on": False, "by": "DISABLED_PLUGINS"}
        assert view["why"] == (
            "the operator switched 'quest' on, but DISABLED_PLUGINS names it and wins; remove it there"
        )
        with pytest.raises(PluginDisabledError, match="remove it from DISABLED_PLUGINS"):
            await host.manager.enable("quest")
    assert store.state.version == 4


# --- two operators --------------------------------------------------------------------------------


async def test_of_two_operators_one_wins(plugins: Path) -> None:
    """Both looked at the same version and act at once: one change is made, the other is refused by its type."""
    async with plugin_host(plugins) as host:
        seen = host.manager.version_of("extra")
        outcomes: list[object] = []

        async def switch_on() -> None:
            try:
                outcomes.append((await host.manager.enable("extra", expected_version=seen)).state)
            except StateConflictError as error:
                outcomes.append(error)

        async with anyio.create_task_group() as group:
            group.start_soon(switch_on)
            group.start_soon(switch_on)
        won, lost = sorted(outcomes, key=lambda each: isinstance(each, Exception))
        assert won is PluginState.ENABLED
        assert isinstance(lost, StateConflictError)
        assert str(lost) == (
            f"plugin 'extra' was changed meanwhile (version {host.manager.version_of('extra')}, not {seen});"
            " look at it again, then repeat the change"
        )


async def test_a_version_rises_with_every_change_and_is_never_met_again(plugins: Path) -> None:
    """Switching, reloading and failing raise it, looking does not, and a restart starts above."""
    async with plugin_host(plugins) as host:
        versions = [host.manager.version_of("badge")]
        host.manager.describe("badge")
        assert host.manager.version_of("badge") == versions[0]
        for change in (host.manager.disable, host.manager.enable, host.manager.reload):
            await change("badge")
            versions.append(host.manager.version_of("badge"))
        with pytest.raises(StateConflictError):
            await host.manager.reload("badge", expected_version=versions[0])
        await host.manager.reload("badge", expected_version=versions[-1])
    async with plugin_host(plugins) as host:
        versions.append(host.manager.version_of("badge"))
    assert versions == sorted(set(versions))


async def test_another_process_that_stored_first_wins(plugins: Path, store: FileStateStore) -> None:
    """Offline edits of the same store are not overwritten; after the conflict the next attempt builds on them."""
    async with plugin_host(plugins, store=store) as host:
        other = FileStateStore(store.file)
        other.save(DesiredState(switched={"badge": False}), expected_version=0)
        with pytest.raises(StateConflictError):
            await host.manager.enable("extra")
        host.assert_state("extra", PluginState.DISABLED)
        assert host.manager.describe("badge")["why"] == "it was switched off elsewhere; the next start follows"
        await host.manager.enable("extra")
        assert other.load() == DesiredState(switched={"badge": False, "extra": True}, version=2)


# --- crashes --------------------------------------------------------------------------------------

_DYING = """
import asyncio, os, signal, sys
from pathlib import Path
from pixsim7_backend.infrastructure.plugins import FileStateStore
from pixsim7_backend.infrastructure.plugins.testing import plugin_host

class DyingStore(FileStateStore):
    def save(self, state, *, expected_version):
        super().save(state, expected_version=expected_version)
        os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with plugin_host(sys.argv[1], store=DyingStore(sys.argv[2])) as host:
        await host.manager.{change}

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("change", "plugin", "state"),
    [
        ("enable('extra')", "extra", PluginState.ENABLED),
        ("disable('badge')", "badge", PluginState.DISABLED),
    ],
)
async def test_a_kill_between_saying_and_doing_is_made_good(
    change: str, plugin: str, state: PluginState, plugins: Path, store: FileStateStore
) -> None:
    """Killed after the wish was stored and before anything was done, the next start does it."""
    script = _DYING.replace("{change}", change)
    command = [sys.executable, "-c", script, str(plugins), str(store.file)]
    done = await anyio.run_process(command, env={"PYTHONPATH": str(ROOT)}, check=False, stderr=subprocess.STDOUT)
    assert done.returncode == -signal.SIGKILL, done.stdout.decode()
    async with plugin_host(plugins, store=store) as host:
        host.assert_state(plugin, state)


async def test_a_damaged_file_ends_the_start(plugins: Path, store: FileStateStore) -> None:
    """The server does not start as if nothing had ever been switched."""
    store.file.parent.mkdir()
    store.file.write_text('{"format": 1, "swi')
    with pytest.raises(StateFileError, match="is damaged"):
        async with plugin_host(plugins, store=store):
            pass


# --- no live changes --------------------------------------------------------------------------------


class _Unreachable(MemoryStateStore):
    """A store that is away until somebody brings it back."""

    is_away = True

    def load(self) -> DesiredState:
        if self.is_away:
            raise StateUnavailableError(place="the database", problem="nobody answers", way_out="restart")
        return super().load()


async def test_start_without_the_store_follows_the_manifests_and_changes_nothing(
    plugins: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said loudly; changes are refused with the same reason, also when the store is back with other wishes."""
    store = _Unreachable(DesiredState(switched={"quest": False}, version=7))
    with caplog.at_level(logging.ERROR):
        async with plugin_host(plugins, store=store) as host:
            assert "Starting with what the manifests wish" in caplog.text
            assert "nobody answers" in caplog.text
            host.assert_state("quest", PluginState.ENABLED)
            for _ in range(2):
                with pytest.raises(StateUnavailableError, match="nobody answers"):
                    await host.manager.disable("badge")
                host.assert_state("badge", PluginState.ENABLED)
                store.is_away = False


async def test_a_store_that_comes_back_empty_is_used(plugins: Path) -> None:
    """Where nothing was ever stored, the start was right, and changes are possible as soon as the store is there."""
    store = _Unreachable()
    async with plugin_host(plugins, store=store) as host:
        store.is_away = False
        await host.manager.disable("badge")
    assert store.state == DesiredState(switched={"badge": False}, version=1)


async def test_store_that_goes_away_while_the_server_runs(plugins: Path, store: FileStateStore) -> None:
    """What cannot be stored is not done: plugins and settings stay as they are, and can be changed when it is back."""
    async with plugin_host(plugins, store=store) as host:
        await host.manager.disable("badge")
        away = store.file.parent.rename(store.file.parent.with_name("away"))
        store.file.parent.write_text("something else")
        for change in (host.manager.enable("badge"), host.manager.disable("quest"), host.manager.enable("extra")):
            with pytest.raises(StateUnavailableError, match="it cannot be written"):
                await change
        states = {each.id: each.state for each in host.manager.iter_records()}
        off = PluginState.DISABLED
        assert states == {"badge": off, "extra": off, "quest": PluginState.ENABLED}
        store.file.parent.unlink()
        away.rename(store.file.parent)
        await host.manager.enable("badge")
        host.assert_state("badge", PluginState.ENABLED)
    assert store.load().switched == {"badge": True}


async def test_several_workers_refuse_live_changes(plugins: Path) -> None:
    """A change would reach one process only; the refusal names the way out and stores nothing."""
    store = MemoryStateStore()
    async with plugin_host(plugins, store=store, allow_live_changes=False) as host:
        manager = host.manager
        for change in (manager.enable, manager.disable, manager.reload, lambda each: manager.refresh(plugins / each)):
            with pytest.raises(LiveChangesRefusedError, match="run with WORKERS=1") as caught:
                await change("badge")
            assert caught.value.plugin == "badge"
        with pytest.raises(LiveChangesRefusedError):
            await manager.change_settings("badge", {})
        host.assert_state("badge", PluginState.ENABLED)
    assert store.state.version == 0


async def test_retry_gives_a_failed_plugin_another_chance(plugins: Path) -> None:
    """A plugin that failed is loaded from disk again; one that runs is left alone."""
    write_plugin(plugins, "broken", "raise ValueError('no luck')")
    async with plugin_host(plugins) as host:
        host.assert_state("broken", PluginState.FAILED)
        write_plugin(plugins, "broken")
        assert (await host.manager.retry("broken")).state is PluginState.ENABLED
        before = host.record("quest")
        assert await host.manager.retry("quest") is before
