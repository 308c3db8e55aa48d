"""Where the operator's wishes are kept: one contract for the file and for both databases."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pixsim7_backend.db import Database
from pixsim7_backend.db.migrations import schema_differences, upgrade
from pixsim7_backend.infrastructure.plugins._store import (
    DesiredState,
    FileStateStore,
    MemoryStateStore,
    StateStore,
)
from pixsim7_backend.infrastructure.plugins.errors import StateConflictError, StateFileError, StateUnavailableError
from pixsim7_backend.plugin_store import MIGRATIONS, DatabaseStateStore
from pixsim7_backend.plugin_store.tables import metadata
from tests.databases import fresh_database

Open = Callable[[], StateStore]

DECISION = {"at": "2026-01-02T03:04:05+00:00", "by": "user 7", "plugin": "b", "granted": ["db:read"], "declined": []}
STATE = DesiredState(
    switched={"a": True, "b": False},
    settings={"b": {"limit": 3, "names": ["x", "y"]}},
    grants={"b": {"granted": ["db:read"], "declined": ["net:example.org"]}},
    audit=(DECISION,),
)


@pytest.fixture(params=["memory", "file", "sqlite", "postgresql"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Give a function that opens the same store again and again, as each start of the server does."""
    if request.param == "memory":
        store = MemoryStateStore()
        yield lambda: store
    elif request.param == "file":
        yield lambda: FileStateStore(tmp_path / "data" / "plugin-state.json")
    else:
        with fresh_database(request.param, tmp_path) as url:
            databases: list[Database] = []

            def open_database() -> StateStore:
                databases.append(Database(url))
                return DatabaseStateStore(databases[-1], migrates=True)

            yield open_database
            for database in databases:
                database.close()


def test_what_was_saved_is_there_at_the_next_start(open_store: Open) -> None:
    """Nothing is kept at first; each save raises the version, and another process reads it all."""
    store = open_store()
    assert store.load() == DesiredState()
    saved = store.save(STATE, expected_version=0)
    assert saved.version == 1
    assert open_store().load() == saved
    smaller = DesiredState(switched={"c": True})
    assert open_store().save(smaller, expected_version=1).version == 2
    assert store.load() == DesiredState(switched={"c": True}, audit=STATE.audit, version=2)


def test_nobody_takes_anything_back_from_the_audit(open_store: Open) -> None:
    """What a state that is saved says of the past does not count; what it adds does."""
    store, later = open_store(), {**DECISION, "by": "user 8"}
    assert store.load().audit == ()
    store.save(STATE, expected_version=0)
    forged = replace(STATE, audit=({**DECISION, "by": "nobody"}, later))
    saved = open_store().save(forged, expected_version=1)
    assert store.load() == saved
    assert saved.audit == (DECISION, later)


def test_who_is_late_gets_a_conflict(open_store: Open) -> None:
    """A save that builds on an older version is refused with both versions, and changes nothing."""
    first, second = open_store(), open_store()
    assert (first.load(), second.load()) == (DesiredState(), DesiredState())
    first.save(STATE, expected_version=0)
    with pytest.raises(StateConflictError) as caught:
        second.save(DesiredState(), expected_version=0)
    assert caught.value.fields == {"plugin": "", "expected": 0, "found": 1}
    first.save(DesiredState(), expected_version=1)
    with pytest.raises(StateConflictError):
        second.save(STATE, expected_version=1)
    assert second.load() == DesiredState(audit=STATE.audit, version=2)


def test_of_simultaneous_saves_one_wins(open_store: Open) -> None:
    """Eight at once, the first time and a later time: each time one is stored, the others get the conflict."""
    if isinstance(open_store(), MemoryStateStore):
        return  # it serves one event loop
    for version in (0, 1):
        outcomes: list[str] = []
        barrier = threading.Barrier(8)

        def save(number: int, store: StateStore, at: int, gate: threading.Barrier, ended: list[str]) -> None:
            gate.wait()
            try:
                store.save(DesiredState(switched={f"plugin-{number}": True}), expected_version=at)
            except StateConflictError:
                ended.append("conflict")
            else:
                ended.append(f"plugin-{number}")

        stores = [open_store() for _ in range(8)]
        assert {each.load().version for each in stores} == {version}
        threads = [
            threading.Thread(target=save, args=(number, store, version, barrier, outcomes))
            for number, store in enumerate(stores)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        [winner] = [each for each in outcomes if each != "conflict"]
        assert len(outcomes) == 8
        assert open_store().load() == DesiredState(switched={winner: True}, version=version + 1)


# --- the file -------------------------------------------------------------------------------------


def test_file_is_its_owners_alone(tmp_path: Path) -> None:
    """The file is 0600 in a directory of 0700, and no draft of it stays."""
    store = FileStateStore(tmp_path / "data" / "state.json")
    store.save(STATE, expected_version=0)
    assert stat.S_IMODE(store.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.file.parent.stat().st_mode) == 0o700
    assert sorted(each.name for each in store.file.parent.iterdir()) == ["state.json", "state.json.lock"]


def test_reading_makes_nothing(tmp_path: Path) -> None:
    """Before the first change there is no file, no directory and no lock."""
    assert FileStateStore(tmp_path / "data" / "state.json").load() == DesiredState()
    assert list(tmp_path.iterdir()) == []


def test_draft_of_a_killed_process_is_no_obstacle(tmp_path: Path) -> None:
    """Half a draft is neither read nor in the way of the next save."""
    store = FileStateStore(tmp_path / "state.json")
    store.save(STATE, expected_version=0)
    draft = tmp_path / ".state.json.draft"
    draft.write_text('{"format": 1, "vers')
    assert store.load().version == 1
    assert store.save(STATE, expected_version=1).version == 2
    assert not draft.exists()


def test_a_crash_before_the_move_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the process ends after the draft is written, what was stored before is still stored."""
    store = FileStateStore(tmp_path / "state.json")
    store.save(STATE, expected_version=0)

    class Killed(BaseException):
        pass

    def die(_self: Path, _target: Path) -> Path:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", die)
        with pytest.raises(Killed):
            store.save(DesiredState(), expected_version=1)
    assert store.load() == replace(STATE, version=1)


DAMAGED = {
    "truncated": ('{"format": 1, "version": 3, "swit', "is damaged (Unterminated string"),
    "empty": ("", "is damaged (Expecting value"),
    "binary": ("\x00\x01", "is damaged"),
    "list": ("[]", "is not a state file of the plugin platform"),
    "foreign": ('{"name": "x"}', "is not a state file of the plugin platform"),
    "newer": ('{"format": 2}', "has format 2, but this version of the platform reads format 1; install the version"),
    "members": ('{"format": 1, "version": 3, "switched": {"a": "on"}, "settings": {}}', "is damaged (switched, "),
}


@pytest.mark.parametrize(("content", "problem"), DAMAGED.values(), ids=list(DAMAGED))
def test_damaged_file_is_an_error_and_stays(content: str, problem: str, tmp_path: Path) -> None:
    """The error says which file, what is wrong and the way out; neither reading nor writing resets it."""
    store = FileStateStore(tmp_path / "state.json")
    store.file.write_text(content)
    with pytest.raises(StateFileError) as caught:
        store.load()
    assert str(caught.value).startswith(f"{store.file}: {problem}")
    assert str(caught.value).endswith("restore it from a backup, or move it away to start with what the manifests wish")
    with pytest.raises(StateFileError):
        store.save(STATE, expected_version=0)
    assert store.file.read_text() == content


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_unreadable_file_is_an_error(tmp_path: Path) -> None:
    """A file of somebody else is not taken for a missing one."""
    store = FileStateStore(tmp_path / "state.json")
    store.save(STATE, expected_version=0)
    store.file.chmod(0)
    with pytest.raises(StateFileError, match="cannot be read"):
        store.load()


def test_file_that_is_a_directory_is_an_error(tmp_path: Path) -> None:
    """What the system says is part of the error."""
    (tmp_path / "state.json").mkdir()
    with pytest.raises(StateFileError, match=r"cannot be read \(Is a directory\)"):
        FileStateStore(tmp_path / "state.json").load()


NOWHERE = {
    "a file in the way": lambda place: place / "taken" / "state.json",
    "a place of the system": lambda _: Path("/proc/plugin-state/state.json"),
}


@pytest.mark.parametrize("find", NOWHERE.values(), ids=list(NOWHERE))
def test_place_that_cannot_be_written_matters_only_when_storing(find: Callable[[Path], Path], tmp_path: Path) -> None:
    """Reading finds nothing kept, so that an app starts; a change is refused with the place and the way out."""
    (tmp_path / "taken").write_text("")
    store = FileStateStore(find(tmp_path))
    assert store.load() == DesiredState()
    with pytest.raises(StateUnavailableError) as caught:
        store.save(STATE, expected_version=0)
    assert str(caught.value).startswith(
        f"the desired state of the plugins in {store.file} cannot be used: it cannot be"
    )
    assert str(caught.value).endswith("or name another directory with DATA_DIR; then repeat the change")


def test_full_disk_leaves_what_was_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The change is refused, the file is as it was, and when there is room again the next change is stored."""
    store = FileStateStore(tmp_path / "state.json")
    kept = store.save(STATE, expected_version=0)

    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StateUnavailableError, match="No space left on device"):
            store.save(DesiredState(), expected_version=1)
    assert store.load() == kept
    assert store.save(DesiredState(), expected_version=1).version == 2


_WRITER = """
import sys
from pixsim7_backend.infrastructure.plugins import DesiredState, FileStateStore
store = FileStateStore(sys.argv[1])
state = store.load()
while True:
    names = {f"plugin-{number}": state.version % 2 == 0 for number in range(2000)}
    state = store.save(DesiredState(switched=names), expected_version=state.version)
    print(state.version, flush=True)
"""


def test_file_is_whole_however_often_its_writer_is_killed(tmp_path: Path) -> None:
    """Ten times a process that writes on and on is killed; each time what it had stored last is there, or the next."""
    store = FileStateStore(tmp_path / "state.json")
    for number in range(10):
        command = [sys.executable, "-c", _WRITER, str(store.file)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        stored = [int(writer.stdout.readline()) for _ in range(1 + number)]
        writer.kill()
        stored += [int(line) for line in writer.communicate(timeout=30)[0].splitlines()]
        found = store.load()
        assert found.version in (stored[-1], stored[-1] + 1)
        assert len(found.switched) == 2000
        assert len(set(found.switched.values())) == 1


def test_file_can_be_read_by_people(tmp_path: Path) -> None:
    """It is indented JSON with a format number."""
    store = FileStateStore(tmp_path / "state.json")
    store.save(STATE, expected_version=0)
    assert json.loads(store.file.read_text()) == {
        "format": 1,
        "version": 1,
        "switched": {"a": True, "b": False},
        "settings": {"b": {"limit": 3, "names": ["x", "y"]}},
        "grants": {"b": {"granted": ["db:read"], "declined": ["net:example.org"]}},
        "audit": [DECISION],
    }


# --- the database ---------------------------------------------------------------------------------


def test_migration_makes_what_the_tables_describe(database: Database) -> None:
    """Alembic finds no difference between the migration and the tables."""
    upgrade(database, [MIGRATIONS])
    assert schema_differences(database, metadata) == []


def test_tables_are_not_made_unasked(database: Database) -> None:
    """Where the operator migrates, missing tables are an error that names the command; nothing is changed."""
    with pytest.raises(StateUnavailableError, match="run `pixsim7 db upgrade`, then restart"):
        DatabaseStateStore(database).load()
    upgrade(database, [MIGRATIONS])
    assert DatabaseStateStore(database).load() == DesiredState()


def test_database_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    """Reading and writing name the database without its password."""
    database = Database("postgresql://somebody:hunter2@127.0.0.1:1/nowhere")
    store = DatabaseStateStore(database, migrates=True)
    for attempt in (store.load, lambda: store.save(STATE, expected_version=0)):
        with pytest.raises(StateUnavailableError, match="see to it that the database answers") as caught:
            attempt()
        assert "hunter2" not in str(caught.value)
    database.close()
