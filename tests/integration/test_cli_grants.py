"""``pixsim7 plugins grants`` and what else concerns strangers' plugins on the command line."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from pixsim7_backend.cli.desired import load_desired
from pixsim7_backend.community.database.own_file import own_file_of
from pixsim7_backend.db.sqlite import create_file
from pixsim7_backend.infrastructure.plugins.preview import probe_machine
from pixsim7_backend.infrastructure.plugins.testing import write_plugin
from pixsim7_backend.settings import load_settings
from tests import plain_http
from tests.command_line import SETTING_NAMES, CommandLine
from tests.databases import fresh_database
from tests.services import free_port, wait_until

ROOT = Path(__file__).parents[2]
DECISION = "asks for db:read, user:read, about which nobody has decided"


@pytest.fixture
def plugins(run: CommandLine) -> CommandLine:
    """``pixsim7 plugins`` in an empty place, where no machine is too weak."""
    run.patch.setenv("COMMUNITY_FLOOR", "none")
    return replace(run, before=("plugins",))


def offer(tmp_path: Path, version: str = "1.0.0", *more: str) -> str:
    """Write a plugin that asks for something, and whose migration must not be run; return its folder."""
    permissions = ["db:read", "user:read", *more]
    folder = write_plugin(tmp_path / version, "quest", version=version, permissions=permissions)
    (folder / "migrations").mkdir()
    (folder / "migrations" / "0001.py").write_text("raise SystemExit('run')\nrevision = '0001'\ndown_revision = None\n")
    return str(folder.relative_to(tmp_path))


def test_add_makes_the_directory_of_strangers(plugins: CommandLine, tmp_path: Path) -> None:
    """It does not exist before; what is there runs when everything is decided."""
    assert plugins("add", offer(tmp_path), "--dry-run").status == 0
    assert not (tmp_path / "community_plugins").exists()
    done = plugins("add", "1.0.0/quest", "--json").json
    assert done["directory"] == str(tmp_path / "community_plugins" / "quest")
    assert (done["will_run"], done["migrations"]) == (False, [])
    assert DECISION in done["held"]["quest"]
    [row] = [row for row in plugins("list", "--json").json if row["id"] == "quest"]
    assert (row["startup"], DECISION in row["reason"]) == ("blocked", True)


def test_enable_decides(plugins: CommandLine, tmp_path: Path) -> None:
    """Without a decision it is refused with the list; with one it is stored, shown, and audited."""
    plugins("add", offer(tmp_path))
    refused = plugins("enable", "quest")
    assert (refused.status, DECISION in refused.err) == (1, True)
    shown = plugins("enable", "quest", "--grant", "db", "--dry-run")
    assert shown.out.startswith("granted:   db:read\ndeclined:  user:read\n")
    assert plugins("grants", "quest", "--json").json["quest"]["undecided"] == ["db:read", "user:read"]
    assert plugins("enable", "quest", "--grant", "db:read:npcs").status == 0
    expected = {
        "requested": ["db:read", "user:read"],
        "granted": ["db:read:npcs"],
        "declined": ["db:read", "user:read"],
        "undecided": [],
    }
    assert plugins("grants", "--json").json == {"quest": expected}
    assert "db:read:npcs" in plugins("grants").out
    [audited] = load_desired(load_settings()).audit
    assert audited["by"].endswith("offline")
    assert "quest" in plugins("plan", "--json").json["order"]


def test_a_grant_that_is_of_no_use_is_warned_of(plugins: CommandLine, tmp_path: Path) -> None:
    """A table that is not there, or of which its owner opens nothing, is named with those that are open."""
    plugins("add", offer(tmp_path))
    done = plugins("enable", "quest", "--grant", "db:read:users,game_npcs,no_table,plugin_state")
    assert "db:read of no_table, plugin_state is of no use: nobody opens that; open are: " in done.out
    assert "game_npcs" in done.out.partition("open are: ")[2]
    assert "db:read of no_table, plugin_state is of no use" in plugins("enable", "quest").out
    assert "of no use" in plugins("enable", "quest", "--grant", "db:read:no_table", "--dry-run").out
    assert "of no use" not in plugins("enable", "quest", "--grant", "db:read:game_npcs").out
    assert "of no use" not in plugins("enable", "quest").out


def test_what_cannot_be_granted_is_said(plugins: CommandLine, tmp_path: Path) -> None:
    """A trusted plugin, one that does not ask, one that is not there."""
    plugins("add", offer(tmp_path))
    assert "runs in the server's own process" in plugins("enable", "auth", "--grant", "all").err
    assert "runs in the server's own process" in plugins("grants", "auth").err
    assert "does not ask for 'db:write'" in plugins("enable", "quest", "--grant", "db:write").err
    assert "no plugin 'nobody' is installed" in plugins("enable", "nobody", "--grant", "all").err
    assert "no plugin 'nobody' is installed" in plugins("grants", "nobody").err


def test_without_strangers_there_is_nothing_to_show(plugins: CommandLine) -> None:
    """Both commands say so."""
    assert plugins("grants").out == "no plugin is confined here; those in COMMUNITY_PLUGINS_DIR are\n"
    assert plugins("grants", "apply").out.startswith("nothing to do: no plugin is confined here")


def test_grants_reach_the_database(plugins: CommandLine, tmp_path: Path) -> None:
    """With PostgreSQL a decision makes or changes the plugin's role at once; it loses all and goes with the plugin."""
    with fresh_database("postgresql", tmp_path) as url, psycopg.connect(url, autocommit=True) as connection:
        plugins.patch.setenv("DATABASE_URL", url)
        assert replace(plugins, before=())("db", "upgrade").status == 0
        plugins("add", offer(tmp_path))
        [told] = plugins("enable", "quest", "--grant", "db:read:game_npcs", "--json").json["enforcement"]
        assert any("game_npcs" in change and "GRANT SELECT" in change for change in told["changes"])
        role = told["as"].removeprefix("role ")

        def readable() -> set[str]:
            found = "SELECT DISTINCT table_name FROM information_schema.column_privileges WHERE grantee = %s"
            return {name for (name,) in connection.execute(found, [role])}

        assert readable() == {"game_npcs"}
        planned = plugins("grants", "apply", "--dry-run", "--json").json
        assert [each["changes"] for each in planned["applied"]] == [[]]
        assert plugins("grants", "apply").out == f"quest as role {role}:\n  nothing to change\n"
        assert f"PostgreSQL follows: role {role}\n" in plugins("enable", "quest", "--grant", "db:read:game_worlds").out
        assert readable() == {"game_worlds"}
        assert plugins("remove", "quest", "--data", "keep").status == 0
        assert readable() == set()
        plugins("add", "1.0.0/quest")
        assert plugins("remove", "quest", "--data", "drop", "--yes").status == 0
        assert connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).fetchall() == []


def test_who_may_not_let_the_database_follow_is_told(plugins: CommandLine, tmp_path: Path) -> None:
    """The decision is kept all the same; the outcome names what the login may not, and who must run what."""
    login = f"pixsim7_test_{uuid.uuid4().hex[:12]}"
    with fresh_database("postgresql", tmp_path) as url, psycopg.connect(url, autocommit=True) as admin:
        plugins.patch.setenv("DATABASE_URL", url)
        assert replace(plugins, before=())("db", "upgrade").status == 0
        plugins("add", offer(tmp_path))
        admin.execute(f"CREATE ROLE {login} LOGIN PASSWORD 'host'".encode())
        try:
            for kept in (
                "USAGE ON SCHEMA public",
                "ALL ON ALL TABLES IN SCHEMA public",
                "EXECUTE ON ALL FUNCTIONS IN SCHEMA pg_catalog",  # another test may have taken these from everybody
                "SELECT ON ALL TABLES IN SCHEMA pg_catalog",
            ):
                admin.execute(f"GRANT {kept} TO {login}".encode())
            own = f"postgresql://{login}:host@{admin.info.host}:{admin.info.port}/{admin.info.dbname}"
            plugins.patch.setenv("DATABASE_URL", own)
            done = plugins("enable", "quest", "--grant", "db")
            assert done.status == 0
            assert (
                f"PostgreSQL lags behind this decision: the login '{login}' of DATABASE_URL may not: CREATE" in done.out
            )
            assert "let an administrator of the database run: DATABASE_URL=postgresql://ADMIN:PASSWORD@" in done.out
            assert plugins("grants", "quest", "--json").json["quest"]["granted"] == ["db:read"]
            again = plugins("grants", "apply")
            assert (again.status, "lags behind the decision" in again.err) == (1, True)
        finally:
            admin.execute(f"DROP OWNED BY {login}".encode())
            admin.execute(f"DROP ROLE {login}".encode())


@pytest.mark.parametrize("data", ["keep", "drop"])
def test_own_tables_go_with_the_plugin(plugins: CommandLine, tmp_path: Path, data: str) -> None:
    """Beside the embedded database they are a file, which ``--data drop`` deletes and ``keep`` leaves."""
    plugins("add", offer(tmp_path))
    file = own_file_of(load_settings().data_dir, "quest")
    create_file(file)
    assert plugins("remove", "quest", "--data", data, "--yes").status == 0
    assert file.exists() == (data == "keep")


def test_without_a_terminal_it_says_what_to_add(plugins: CommandLine, tmp_path: Path) -> None:
    """Where nobody can be asked nothing is removed, and the options that answer are named."""
    plugins("add", offer(tmp_path))
    plugins.patch.setattr("sys.stdin", io.StringIO())
    asked, sure = plugins("remove", "quest"), plugins("remove", "quest", "--data", "drop")
    assert (asked.status, "add --data keep, --data export or --data drop" in asked.err) == (2, True)
    assert (sure.status, "nothing was removed; add --yes" in sure.err) == (2, True)
    assert (tmp_path / "community_plugins" / "quest").exists()


@pytest.mark.parametrize("data", ["keep", "export", "drop"])
def test_removing_forgets_what_was_granted(plugins: CommandLine, tmp_path: Path, data: str) -> None:
    """Whoever comes under its name is asked about again; none of its code was run to find its tables."""
    plugins("add", offer(tmp_path))
    plugins("enable", "quest", "--grant", "all")
    assert plugins("remove", "quest", "--data", data, "--yes").status == 0
    assert load_desired(load_settings()).grants == {}
    plugins("add", offer(tmp_path, "2.0.0"))
    assert DECISION in plugins("enable", "quest").err


def test_an_upgrade_says_what_is_new(plugins: CommandLine, tmp_path: Path) -> None:
    """It is there, and held back; the former version can be put back."""
    plugins("add", offer(tmp_path))
    plugins("enable", "quest", "--grant", "all")
    done = plugins("add", offer(tmp_path, "2.0.0", "db:write"), "--upgrade")
    assert "db:write (new)" in done.out
    assert "asks for db:write besides what it may (db:read, user:read)" in done.out
    assert plugins("rollback", "quest").status == 0
    assert "quest" in plugins("plan", "--json").json["order"]


def test_one_may_be_trusted(plugins: CommandLine, tmp_path: Path) -> None:
    """By a setting, never by the plugin itself; what is wrong in it is said."""
    plugins("add", offer(tmp_path))
    plugins.patch.setenv("ISOLATION", "quest=in-process")
    assert "quest" in plugins("plan", "--json").json["order"]
    assert plugins("grants", "--json").json == {}
    plugins.patch.setenv("ISOLATION", "quest=trusted")
    wrong = plugins("list")
    assert (wrong.status, "ISOLATION" in wrong.err) == (2, True)


def test_migrations_of_strangers_are_not_run(run: CommandLine, tmp_path: Path) -> None:
    """Neither shown nor run by the host: reading one would run it."""
    run.patch.setenv("COMMUNITY_FLOOR", "none")
    run("plugins", "add", offer(tmp_path))
    run("plugins", "enable", "quest", "--grant", "all")
    assert run("db", "upgrade").status == 0
    assert "quest" not in [each["plugin"] for each in run("db", "current", "--json").json]


def test_the_doctor_says_how_well_plugins_are_confined(run: CommandLine) -> None:
    """The level that this machine reaches is shown; an impossible floor is a warning with the way out."""
    [found] = [each for each in run("doctor", "--json").json if each["what"] == "confinement"]
    assert found["detail"].split(":")[0] in {"none", "limits", "landlock", "confined", "namespaced"}


# --- on a running server, in a jail ------------------------------------------------------------------


@contextmanager
def serving(path: Path) -> Iterator[str]:
    """Run a server in this directory, without the backend's own plugins; give its address."""
    kept = {name: value for name, value in os.environ.items() if name not in SETTING_NAMES}
    (path / "plugins").mkdir()
    command = [sys.executable, "-m", "pixsim7_backend", "serve", "--port", str(port := free_port())]
    env = kept | {"PYTHONPATH": str(ROOT), "PLUGINS_DIR": "plugins"}
    with (path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=path, env=env, stdout=log, stderr=log)
    try:
        assert wait_until((path / "data" / "control.sock").exists, 60), (path / "log").read_text()
        yield f"http://127.0.0.1:{port}/api/v1"
    finally:
        process.terminate()
        process.wait(60)


def answering(tmp_path: Path, version: str, *permissions: str) -> str:
    code = f'@router.get("/version")\ndef version() -> str: return "{version}"'
    folder = write_plugin(tmp_path / version, "quest", code, version=version, permissions=list(permissions))
    return str(folder.relative_to(tmp_path))


@pytest.mark.skipif(not probe_machine().reaches("confined"), reason="this machine does not confine plugins")
def test_a_stranger_is_installed_granted_upgraded_and_removed(run: CommandLine, tmp_path: Path) -> None:
    """All of it while the server runs: it waits where it asks for more, and serves on what it was granted."""
    run.patch.setenv("PLUGINS_DIR", "plugins")
    plugins = replace(run, before=("plugins",))
    with serving(tmp_path) as url:

        def served() -> object:
            answer = plain_http.get(f"{url}/quest/version")
            return answer.json() if answer.status_code == 200 else answer.status_code

        assert "held back: quest" in plugins("add", answering(tmp_path, "1.0.0", "user:read")).out
        assert served() == 404
        assert plugins("enable", "quest", "--grant", "user:read").out.endswith("quest is enabled\n")
        assert served() == "1.0.0"
        done = plugins("add", answering(tmp_path, "2.0.0", "user:read", "events:emit"), "--upgrade")
        assert "asks for events:emit besides what it may (user:read)" in done.out
        [row] = [each for each in plugins("list", "--json").json if each["id"] == "quest"]
        assert (row["version"], row["reload_error"]["type"]) == ("1.0.0", "GrantNeededError")
        assert served() == "1.0.0"
        assert "replaced quest" in plugins("enable", "quest", "--grant", "all").out
        assert served() == "2.0.0"
        assert plugins("grants", "quest", "--json").json["quest"]["granted"] == ["events:emit", "user:read"]
        audit = plugins("events", "--json").json["audit"]
        assert [each["by"] for each in audit] == [f"user {os.geteuid()} at the control socket"] * 2
        plugins("add", answering(tmp_path, "3.0.0", "db:read:no_table"), "--upgrade")
        for options in (["--grant", "all"], []):
            assert "db:read of no_table is of no use: nobody opens that" in plugins("enable", "quest", *options).out
        assert plugins("remove", "quest", "--data", "keep").status == 0
        assert plugins("grants", "--json").json == {}
        assert "no plugin 'quest' is installed" in plugins("grants", "quest").err
        assert served() == 404
        assert "held back: quest" in plugins("add", "2.0.0/quest").out
