"""``pixsim7 plugins add --grant``: a stranger's plugin is installed and decided about at the same time."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from pixsim7_backend.cli.desired import load_desired
from pixsim7_backend.infrastructure.plugins.preview import probe_machine
from pixsim7_backend.settings import load_settings
from tests import plain_http
from tests.command_line import CommandLine
from tests.integration.test_cli_grants import answering, offer, serving


@pytest.fixture
def plugins(run: CommandLine) -> CommandLine:
    """``pixsim7 plugins`` in an empty place, where no machine is too weak."""
    run.patch.setenv("COMMUNITY_FLOOR", "none")
    return replace(run, before=("plugins",))


def start_of(plugins: CommandLine) -> tuple[str, str | None]:
    """Return what the next start makes of the plugin, and why."""
    [row] = [row for row in plugins("list", "--json").json if row["id"] == "quest"]
    return row["startup"], row["reason"]


def test_what_it_asks_for_is_granted_with_it(plugins: CommandLine, tmp_path: Path) -> None:
    """A dry run shows it and stores nothing; then the next start has it, and the audit says who decided."""
    source = offer(tmp_path)
    shown = plugins("add", source, "--grant", "db:read", "--grant", "user:read", "--dry-run")
    assert "would be done\n  asks for: db:read, user:read\n  starts: quest\n" in shown.out
    assert shown.out.endswith("  granted:   db:read, user:read\n")
    assert load_desired(load_settings()).grants == {}
    done = plugins("add", source, "--grant", "db:read", "--grant", "user:read", "--json").json
    assert (done["will_run"], done["held"], done["enforcement"]) == (True, {}, [])
    assert done["grants"]["granted"] == ["db:read", "user:read"]
    assert start_of(plugins) == ("ready", None)
    [audited] = load_desired(load_settings()).audit
    assert (audited["granted"], audited["by"].endswith("offline")) == (["db:read", "user:read"], True)


def test_what_nobody_thought_of_holds_it_back(plugins: CommandLine, tmp_path: Path) -> None:
    """It is there, keeps what was granted, and says what is undecided and which command decides."""
    done = plugins("add", offer(tmp_path), "--grant", "user:read")
    reason = (
        "plugin 'quest' asks for db:read besides what it may (user:read), about which nobody has decided;"
        " pixsim7 plugins enable quest --grant user:read --grant db:read (or --grant none)"
    )
    assert f"  held back: quest: {reason}\n  granted:   user:read\n  undecided: db:read\n" in done.out
    assert start_of(plugins) == ("blocked", reason)
    assert plugins("enable", "quest", "--grant", "user:read", "--grant", "db:read").status == 0
    assert start_of(plugins) == ("ready", None)


@pytest.mark.parametrize(
    ("grant", "granted", "declined"),
    [
        (["all"], ["db:read", "user:read"], []),
        (["none"], [], ["db:read", "user:read"]),
        (["db", "user:read"], ["db:read", "user:read"], []),
        (["db:read:game_npcs", "user:read"], ["db:read:game_npcs", "user:read"], ["db:read"]),
    ],
)
def test_the_short_forms_are_those_of_enable(
    plugins: CommandLine, tmp_path: Path, grant: list[str], granted: list[str], declined: list[str]
) -> None:
    """All, none, a family, and less than it asks for; each decides about everything here."""
    options = [each for name in grant for each in ("--grant", name)]
    done = plugins("add", offer(tmp_path), *options, "--json").json["grants"]
    assert (done["granted"], done["declined"], done["undecided"]) == (granted, declined, [])
    assert start_of(plugins) == ("ready", None)


def test_what_cannot_be_granted_installs_nothing(plugins: CommandLine, tmp_path: Path) -> None:
    """What it does not ask for, what is no permission, none beside others, and what is trusted are refused."""
    source = offer(tmp_path)
    for options, problem in (
        (["db:write"], "does not ask for 'db:write'"),
        (["db:raed"], "db:raed"),
        (["none", "db:read"], "grant it alone"),
    ):
        refused = plugins("add", source, *[each for name in options for each in ("--grant", name)])
        assert (refused.status, problem in refused.err) == (1, True), refused
    plugins.patch.setenv("EXTRA_PLUGINS_DIRS", "mine")
    (tmp_path / "mine").mkdir()
    refused = plugins("add", source, "--into", "mine", "--grant", "all")
    assert "runs in the server's own process" in refused.err
    assert not list((tmp_path / "mine").glob("quest"))
    assert not (tmp_path / "community_plugins" / "quest").exists()
    assert load_desired(load_settings()).audit == ()


def test_an_upgrade_keeps_what_was_decided(plugins: CommandLine, tmp_path: Path) -> None:
    """What is named is decided anew, be it more or less; the rest stays, and a table that nobody opens is warned of."""
    plugins("add", offer(tmp_path), "--grant", "user:read", "--grant", "db:read")
    second = offer(tmp_path, "2.0.0", "db:write", "redis:read")
    held = plugins("add", second, "--upgrade", "--grant", "db:write:game_npcs")
    assert "undecided: redis:read" in held.out
    assert "warning: db:write of game_npcs is of no use" in held.out
    done = plugins("add", second, "--upgrade", "--grant", "redis:read", "--grant", "db:read:game_npcs", "--json").json
    assert done["grants"]["granted"] == ["db:read:game_npcs", "db:write:game_npcs", "redis:read", "user:read"]
    assert done["will_run"] is True


# --- on a running server, in a jail ------------------------------------------------------------------


@pytest.mark.skipif(not probe_machine().reaches("confined"), reason="this machine does not confine plugins")
def test_on_a_server_it_serves_at_once(run: CommandLine, tmp_path: Path) -> None:
    """With what was granted, without what was not; a version that does not start takes its decision along."""
    run.patch.setenv("PLUGINS_DIR", "plugins")
    plugins = replace(run, before=("plugins",))
    operator = f"user {os.geteuid()} at the control socket"
    with serving(tmp_path) as url:
        partly = plugins("add", answering(tmp_path, "0.9.0", "user:read", "events:emit"), "--grant", "user:read")
        assert "undecided: events:emit" in partly.out
        assert plain_http.get(f"{url}/quest/version").status_code == 404
        granted = ["--grant", "events:emit"]
        done = plugins("add", answering(tmp_path, "1.0.0", "user:read", "events:emit"), "--upgrade", *granted, "--json")
        assert (done.json["is_live"], done.json["grants"]["granted"]) == (True, ["events:emit", "user:read"])
        assert plain_http.get(f"{url}/quest/version").json() == "1.0.0"
        broken = tmp_path / answering(tmp_path, "2.0.0", "user:read", "events:emit", "db:own")
        (broken / "manifest.py").write_text((broken / "manifest.py").read_text() + "\nraise RuntimeError('no')\n")
        failed = plugins("add", str(broken), "--upgrade", "--grant", "db:own")
        assert (failed.status, "was taken back" in failed.err) == (1, True)
        assert plain_http.get(f"{url}/quest/version").json() == "1.0.0"
        assert plugins("grants", "quest", "--json").json["quest"]["granted"] == ["events:emit", "user:read"]
        audit = plugins("events", "--json").json["audit"]
        assert [each["by"] for each in audit] == [*[operator] * 3, f"{operator} (taken back: it did not start)"]
        assert plugins("remove", "quest", "--data", "keep").status == 0
        again = plugins("add", str(broken), "--grant", "all")
        assert "was taken back" in again.err
        assert load_desired(load_settings()).grants == {}
