from __future__ import annotations

import io
import os
import socket
import sys
from pathlib import Path

import pytest

from pixsim7_backend import __version__
from pixsim7_backend.infrastructure.plugins.testing import write_plugin
from tests.command_line import CommandLine, Done
from tests.databases import fresh_database


def test_version(run: CommandLine) -> None:
    """--version prints the version of the package."""
    assert run("--version") == Done(0, f"{__version__}\n", "")


def test_help_names_every_command(run: CommandLine) -> None:
    """Without arguments the commands and the exit statuses are listed."""
    text = run("--help").out
    for command in ("serve", "plugins", "db", "demo", "users", "doctor"):
        assert f"\n  {command} " in text
    assert "Exit status: 0 done;" in text


def test_wrong_usage_is_status_two(run: CommandLine) -> None:
    """An unknown option is wrong usage, told in a sentence."""
    done = run("plugins", "list", "--jsn")
    assert done.status == 2
    assert "No such option: --jsn" in done.err
    assert "Traceback" not in done.err


def test_wrong_setting_is_status_two(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unusable setting is named with an example, without a traceback."""
    monkeypatch.setenv("PORT", "http")
    done = run("plugins", "list")
    assert (done.status, done.out) == (2, "")
    assert done.err == (
        "error: PORT: input should be a valid integer, unable to parse string as an integer; write it like PORT=8000\n"
    )


def test_unreadable_configuration_is_status_two(run: CommandLine, tmp_path: Path) -> None:
    """A config.yaml that is not YAML is named."""
    (tmp_path / "config.yaml").write_text("a: [")
    done = run("plugins", "list")
    assert done.status == 2
    assert done.err.startswith("error: config.yaml")


# --- plugins ------------------------------------------------------------------------------------


def test_list_shows_what_a_start_would_make_of_each_plugin(run: CommandLine, tmp_path: Path) -> None:
    """The list has every plugin with its state and the reason, and imports none of them."""
    write_plugin(tmp_path / "own", "good", "raise SystemExit('imported')")
    write_plugin(tmp_path / "own", "lonely", dependencies=["nobody"])
    write_plugin(tmp_path / "own", "off", enabled=False)
    rows = {row["id"]: row for row in run("plugins", "list", "--dir", "own", "--json").json}
    assert {plugin: row["startup"] for plugin, row in rows.items()} == {
        "good": "ready",
        "lonely": "blocked",
        "off": "disabled",
    }
    assert rows["lonely"]["reason"] == "plugin 'lonely' requires 'nobody', which is not installed"
    text = run("plugins", "list", "--dir", "own").out
    assert "lonely" in text
    assert "which is not installed" in text


def test_list_of_the_installation_makes_no_file(run: CommandLine, tmp_path: Path) -> None:
    """Looking at the plugins in an empty place leaves it empty."""
    assert [row["startup"] for row in run("plugins", "list", "--json").json] == ["ready"] * 8
    assert list(tmp_path.iterdir()) == []


def test_disabled_plugins_are_respected(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """DISABLED_PLUGINS holds back the plugin, and names why its dependants are blocked."""
    monkeypatch.setenv("DISABLED_PLUGINS", "game_npcs")
    rows = {row["id"]: row for row in run("plugins", "list", "--json").json}
    assert rows["game-npcs"]["startup"] == "disabled"
    assert rows["game-stealth"]["startup"] == "blocked"


def test_redis_of_the_configuration_is_asked(run: CommandLine, tmp_path: Path) -> None:
    """A plugin that requires Redis is blocked with the reason: not set, or set in config.yaml but not answering."""
    write_plugin(tmp_path / "own", "cached", requires_redis=True)
    [row] = run("plugins", "list", "--dir", "own", "--json").json
    assert row["startup"] == "blocked"
    assert "set REDIS_URL" in row["reason"]
    (tmp_path / "config.yaml").write_text("REDIS_URL: redis://127.0.0.1:1/0\n")
    [row] = run("plugins", "list", "--dir", "own", "--json").json
    assert "does not answer" in row["reason"]


def test_graph_shows_requirements(run: CommandLine) -> None:
    """The graph has one line per plugin with what it requires; as JSON a mapping and the circles."""
    assert "game-stealth <- auth, game-sessions, game-npcs\n" in run("plugins", "graph").out
    found = run("plugins", "graph", "--json").json
    assert found["requires"]["users"] == ["auth"]
    assert found["cycles"] == []


def test_plan_shows_the_order(run: CommandLine) -> None:
    """The plan lists the load order, dependencies first."""
    order = run("plugins", "plan", "--json").json["order"]
    assert order.index("auth") < order.index("game-scenes") < order.index("game-sessions") < order.index("game-stealth")
    assert run("plugins", "plan").out.startswith("8 to load:\n   1. auth")


def test_plan_with_a_problem_is_status_one(run: CommandLine, tmp_path: Path) -> None:
    """A circle is printed in full, and the exit status tells a script of it."""
    write_plugin(tmp_path / "own", "game-combat", dependencies=["game-npcs"])
    write_plugin(tmp_path / "own", "game-npcs", dependencies=["game-combat"])
    done = run("plugins", "plan", "--dir", "own")
    assert done.status == 1
    assert "Circular dependency detected: game-combat -> game-npcs -> game-combat" in done.out


def test_missing_directory_is_an_error(run: CommandLine) -> None:
    """A plugin directory that does not exist is named with the places that were searched."""
    done = run("plugins", "list", "--dir", "nowhere")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("error: plugin directory 'nowhere' does not exist (looked for ")


# --- db -----------------------------------------------------------------------------------------


def test_upgrade_runs_once(run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first upgrade runs every plugin's migrations in load order; the second has nothing to do."""
    with fresh_database("postgresql", tmp_path) as url:
        monkeypatch.setenv("DATABASE_URL", url)
        assert run("db", "current").status == 1
        applied = [step["plugin"] for step in run("db", "upgrade", "--json").json["applied"]]
        assert applied[0] == "auth"
        assert "game-sessions" in applied
        assert run("db", "upgrade") == Done(0, "nothing to do: every plugin's tables are up to date\n", "")
        done = run("db", "current", "--json")
        assert done.status == 0
        assert set(applied) <= {row["plugin"] for row in done.json}
        assert not any(row["pending"] for row in done.json)


def test_upgrade_shows_its_steps(run: CommandLine) -> None:
    """Each step is printed; a log line of Alembic is not."""
    done = run("db", "upgrade")
    assert "auth: 0001\n" in done.out
    assert done.err == ""


def test_database_that_does_not_answer_is_an_error(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the database without its password and the setting to correct."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:hunter2@127.0.0.1:1/x")
    done = run("db", "upgrade")
    assert done.status == 1
    assert "DATABASE_URL" in done.err
    assert "hunter2" not in done.err
    assert "Traceback" not in done.err


def test_malformed_database_url_is_an_error(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL of a database that is not supported is refused with correct examples."""
    monkeypatch.setenv("DATABASE_URL", "mysql://u:hunter2@localhost/x")
    done = run("db", "current")
    assert done.status == 1
    assert "write it like sqlite:///data/pixsim7.sqlite3" in done.err


# --- users --------------------------------------------------------------------------------------


def test_admin_is_made_with_a_password_from_the_environment(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty place the database is made first; the password is nowhere in the output."""
    monkeypatch.setenv("PIXSIM7_ADMIN_PASSWORD", "correct horse battery")
    done = run("users", "create-admin", "ada@example.org", "ada", "--json")
    assert done.status == 0, done.err
    assert done.json == {"id": 1, "email": "ada@example.org", "username": "ada", "role": "admin"}
    assert "correct horse" not in done.out + done.err


def test_admin_is_made_with_a_password_from_standard_input(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """--password-stdin reads one line."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("correct horse battery\n"))
    done = run("users", "create-admin", "ada@example.org", "ada", "--password-stdin")
    assert done == Done(0, "made admin ada <ada@example.org>, id 1\n", "")


def test_second_admin_of_the_same_name_is_refused(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A taken name is an error in a sentence, and nothing is made."""
    monkeypatch.setenv("PIXSIM7_ADMIN_PASSWORD", "correct horse battery")
    assert run("users", "create-admin", "ada@example.org", "ada").status == 0
    done = run("users", "create-admin", "ben@example.org", "ada")
    assert (done.status, done.out) == (1, "")
    assert done.err == "error: the username is taken by another account; choose another one\n"


def test_bad_account_values_are_wrong_usage(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short password and a malformed address are named."""
    monkeypatch.setenv("PIXSIM7_ADMIN_PASSWORD", "short")
    done = run("users", "create-admin", "nobody", "ada")
    assert done.status == 2
    assert "email: " in done.err
    assert "password: " in done.err
    assert "short" not in done.err.replace("too short", "")


def test_password_is_not_asked_for_without_a_terminal(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a script the other ways are named instead of waiting for ever."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    done = run("users", "create-admin", "ada@example.org", "ada")
    assert done.status == 2
    assert "--password-stdin" in done.err


def test_admin_waits_for_migrations(run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a database of the operator's own nothing is migrated on the side."""
    monkeypatch.setenv("PIXSIM7_ADMIN_PASSWORD", "correct horse battery")
    with fresh_database("postgresql", tmp_path) as url:
        monkeypatch.setenv("DATABASE_URL", url)
        done = run("users", "create-admin", "ada@example.org", "ada")
        assert done.status == 1
        assert "run `pixsim7 db upgrade` first" in done.err


# --- doctor and serve ---------------------------------------------------------------------------


def test_doctor_finds_nothing_in_an_empty_place(run: CommandLine, tmp_path: Path) -> None:
    """A fresh installation is healthy, and examining it makes no file."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "config.yaml").write_text(f"port: {port}\n")
    done = run("doctor", "--json")
    assert done.status == 0
    assert {finding["verdict"] for finding in done.json} == {"ok"}
    assert {"python", "database", "redis", "port", "plugins"} <= {finding["what"] for finding in done.json}
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_doctor_names_every_problem(run: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Database, Redis and plugins are each named with the way out; the exit status is 1."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:hunter2@127.0.0.1:1/x")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("EXTRA_PLUGINS_DIRS", "own")
    write_plugin(tmp_path / "own", "lonely", dependencies=["nobody"])
    done = run("doctor", "--json")
    assert done.status == 1
    problems = {finding["what"] for finding in done.json if finding["verdict"] == "problem"}
    assert problems == {"database", "redis", "plugin lonely"}
    assert "hunter2" not in done.out
    assert "lonely" in run("doctor").out


def test_doctor_counts_what_is_switched_off(run: CommandLine) -> None:
    """It says the same as the plan: a plugin that an operator switched off is not among those to load."""
    assert run("plugins", "disable", "users").status == 0
    [plugins] = [finding["detail"] for finding in run("doctor", "--json").json if finding["what"] == "plugins"]
    assert plugins == f"{len(run('plugins', 'plan', '--json').json['order'])} to load, 1 held back"


def test_doctor_says_a_malformed_address_once(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """`DATABASE_URL` is the database's problem, and the plugins are looked at without it."""
    monkeypatch.setenv("DATABASE_URL", "bogus://x")
    verdicts = {finding["what"]: finding["verdict"] for finding in run("doctor", "--json").json}
    assert (verdicts["database"], verdicts["plugins"]) == ("problem", "ok")


def test_doctor_survives_unusable_settings(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where settings cannot be read that is the finding."""
    monkeypatch.setenv("WORKERS", "many")
    done = run("doctor", "--json")
    assert done.status == 1
    assert done.json[-1]["what"] == "settings"


def test_serve_names_a_taken_port(run: CommandLine) -> None:
    """A port in use is told before anything starts, with another one to try."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = run("serve", "--port", str(port))
    assert done.status == 1
    assert done.err == (
        f"error: port {port} on 127.0.0.1 is in use; stop the other program,"
        f" or choose another port: pixsim7 serve --port {port + 1}\n"
    )


def test_serve_tells_each_worker_that_there_are_others(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option reaches the processes of the workers as the setting, so that each refuses live changes."""
    monkeypatch.setenv("WORKERS", "1")
    seen: list[str] = []

    def run_workers(_config: object) -> bool:
        seen.append(os.environ["WORKERS"])
        return True

    monkeypatch.setattr("pixsim7_backend.cli.serve._run_workers", run_workers)
    assert run("serve", "--workers", "3", "--port", "0").status == 0
    assert seen == ["3"]


def test_serve_names_an_unknown_host(run: CommandLine) -> None:
    """A host that is none of this machine's is told before anything starts."""
    done = run("serve", "--host", "192.0.2.1", "--port", "0")
    assert done.status == 1
    assert done.err.startswith("error: cannot listen on port 0 on 192.0.2.1: ")
