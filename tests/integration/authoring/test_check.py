from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from pixsim7_backend import plugins
from pixsim7_backend.cli.plugins_check import Launch, run_check
from pixsim7_backend.infrastructure.plugins._conformance import (
    CHECKS,
    CheckResult,
    Finding,
    Report,
    Verdict,
    check_plugin,
    trials,
)
from pixsim7_backend.infrastructure.plugins.testing import write_plugin
from tests.command_line import CommandLine
from tests.integration.authoring.forked import launcher

PLUGINS_DIR = Path(plugins.__file__).parent
FIRST_PARTY = sorted(path.parent.name for path in PLUGINS_DIR.glob("*/manifest.py"))

GREETING = '''
@router.get("/")
async def greet() -> str:
    """Greet everybody."""
    return "hello"
'''


def _check(folder: Path, *, reloads: int = 1) -> Report:
    """Try a plugin out in this process, on a bare app: for faults that leave nothing here."""
    return asyncio.run(check_plugin(folder, reloads=reloads))


@pytest.fixture(scope="module")
def launch() -> Iterator[Launch]:
    """Starts processes for checks, in less time than the command."""
    with launcher() as start:
        yield start


def _check_apart(folder: Path, launch: Launch, *, reloads: int = 1) -> Report:
    """Try a plugin out in a process of its own."""
    return run_check(folder, [], reloads=reloads, timeout=60, launch=launch)


def _result(report: Report, check: str) -> CheckResult:
    return next(result for result in report.results if result.check == check)


def _findings(report: Report) -> dict[str, list[str]]:
    return {each.check: [finding.what for finding in each.findings] for each in report.results if each.findings}


@pytest.mark.parametrize("folder", FIRST_PARTY)
def test_first_party_plugins_conform(folder: str, launch: Launch) -> None:
    """Nothing is found in any of our own plugins."""
    report = run_check(PLUGINS_DIR / folder, [str(PLUGINS_DIR)], reloads=3, timeout=100, launch=launch)
    assert _findings(report) == {}
    assert report.is_passed
    assert report.score == 100


@pytest.mark.parametrize("selection", ["", "db,settings,events"])
def test_new_plugins_conform(run: CommandLine, selection: str) -> None:
    """A plugin as it was written has the full score, and being tried out leaves nothing in its folder."""
    folder = Path(run("plugins", "new", "my-feature", "--with", selection, "--json").json["folder"])
    before = sorted(folder.rglob("*"))
    done = run("plugins", "check", str(folder), "--reloads", "2", "--fail-under", "100", "--json")
    assert done.status == 0, done.out
    assert done.json["score"] == 100
    assert [result["check"] for result in done.json["results"]] == [check.name for check in CHECKS]
    assert sorted(folder.rglob("*")) == before


def test_weights_add_up() -> None:
    """A plugin to which every check applies has 100 points to earn."""
    assert sum(check.weight for check in CHECKS) == 100


def test_score_counts_what_applies() -> None:
    """A warning earns half, a failure and what was not tried nothing; what does not apply is left out."""
    ended = {"manifest": Verdict.OK, "load": Verdict.NOT_RUN, "settings": Verdict.NOT_APPLICABLE}
    results = [CheckResult(check=name, ended=verdict) for name, verdict in ended.items()]
    results.append(CheckResult(check="enable", findings=(Finding(what="odd", verdict=Verdict.WARN),)))
    report = Report(plugin="one", folder="", results=tuple(results))
    assert report.score == 50
    assert not report.is_passed


def test_nothing_in_the_folder_is_an_error(run: CommandLine, tmp_path: Path) -> None:
    """A folder without a plugin is named, with status 1 and no report."""
    done = run("plugins", "check", "nowhere")
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"error: {tmp_path / 'nowhere'} has no manifest.py; ")


def test_broken_manifest_stops_everything_else(run: CommandLine, tmp_path: Path) -> None:
    """The manifest's problem is shown with its line; the rest is shown as not tried."""
    folder = write_plugin(tmp_path / "own", "wrong", version="one")
    done = run("plugins", "check", str(folder))
    assert done.status == 1
    lines = done.out.splitlines()
    assert lines[1] == "  fail  manifest"
    assert "'one' is not a PEP 440 version" in lines[2]
    assert "  -     load           not tried" in lines
    assert lines[-1] == "score 0 of 100: 1 failed, 0 with warnings"


def test_every_kind_of_fault_is_found(tmp_path: Path, launch: Launch) -> None:
    """One plugin with a fault for each check that looks at code which runs: each is named with its place.

    What it leaves running, a task that will not die among it, does not keep the check from ending.
    """
    code = '''
    import logging, os, threading, time

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass

    from pixsim7_backend.db import DbSession

    @router.get("/broken")
    def broken() -> int:
        """Raise."""
        return 1 // 0

    @router.post("/broken")
    def first() -> None:
        """Answer."""

    @router.post("/broken")
    def second() -> None:
        """Never answer."""

    @router.get("/slow", operation_id="twice")
    async def slow() -> int:
        time.sleep(0)
        return 1

    @router.get("/unavailable", operation_id="twice")
    async def unavailable(db: DbSession) -> int:
        """Answer 503."""
        db.close()
        raise HTTPException(503, "later")

    async def announce() -> None:
        await plugin_hooks.emit("faulty:undeclared")

    def on_enable() -> None:
        os.environ["FAULTY"] = "1"
        asyncio.create_task(stubborn(), name="stubborn")
        threading.Thread(target=time.sleep, args=(60,), daemon=True, name="forgotten").start()
    '''
    folder = write_plugin(tmp_path / "own", "faulty", code, events=["faulty:never"])
    report = _check_apart(folder, launch)
    found = _findings(report)
    place = folder / "manifest.py"
    assert found["events"] == [
        "event 'faulty:undeclared' is not declared",
        "event 'faulty:never' is declared but never emitted",
    ]
    assert found["blocking"] == [
        "time.sleep() inside `async def slow` blocks the event loop",
        "`async def unavailable` uses a synchronous session (DbSession), which blocks the event loop",
    ]
    assert found["openapi"] == [
        "is defined twice",
        "has no description",
        "operation id 'twice' is that of GET /api/v1/faulty/slow too",
    ]
    lines = [_line_of(place, f"def {name}") - 1 for name in ("first", "second")]
    way = f"change one of the two: {place}:{lines[0]} answers, {place}:{lines[1]} is never asked"
    assert _result(report, "openapi").findings[0].way_out == way
    [raised, answered] = _result(report, "requests").findings
    assert raised.what == "ZeroDivisionError: integer division or modulo by zero"
    assert raised.where == f"GET /api/v1/faulty/broken, {place}:{_line_of(place, '1 // 0')}"
    assert answered.what.startswith("answered 503: ")
    assert "thread forgotten is left behind" in found["disable"]
    assert "environment variable FAULTY is left behind" in found["disable"]
    assert "task stubborn is left behind" in found["disable"]
    assert _result(report, "failing start").verdict is Verdict.NOT_RUN
    assert not report.is_passed


def _line_of(file: Path, text: str) -> int:
    return next(number for number, line in enumerate(file.read_text().splitlines(), 1) if text in line)


def test_undeclared_import_is_found(tmp_path: Path) -> None:
    """A neighbour that is imported must be in `dependencies`."""
    write_plugin(tmp_path, "other", "VALUE = 1")
    folder = write_plugin(tmp_path, "curious", "def late() -> None:\n    from ..other.manifest import VALUE\n")
    assert 'add "other" to `dependencies`' in _findings(_check(folder))["imports"][0]


def test_dependencies_are_found_beside_it(tmp_path: Path) -> None:
    """What it requires is taken from beside it and started first; where it is missing that is the finding."""
    folder = write_plugin(tmp_path, "needing", GREETING, dependencies=["needed"])
    assert _findings(_check(folder)) == {"load": ["plugin 'needing' requires 'needed', which is not installed"]}
    write_plugin(tmp_path, "needed")
    report = _check(folder)
    assert _findings(report) == {}
    write_plugin(tmp_path, "needed", "raise ValueError('no')")
    [problem] = _findings(_check(folder))["load"]
    assert problem.startswith("what it requires does not run: ValueError: no")


def test_failing_import_and_hook_are_told_apart(tmp_path: Path) -> None:
    """What raises at import fails `load`; what raises in on_enable fails `enable` only."""
    broken = _check(write_plugin(tmp_path, "broken", "1 / 0"))
    assert _findings(broken)["load"][0].startswith("ZeroDivisionError: division by zero (")
    assert _result(broken, "enable").verdict is Verdict.NOT_RUN
    refusing = _check(write_plugin(tmp_path, "refusing", "def on_enable():\n    1 / 0\n"))
    assert _result(refusing, "load").verdict is Verdict.OK
    assert "on_enable of plugin 'refusing' raised ZeroDivisionError" in _findings(refusing)["enable"][0]


def test_what_remembers_old_code_is_found(tmp_path: Path) -> None:
    """A plugin that leaves itself in another module's list is reported: its old generations live on."""
    code = "import sys, string\nstring.__dict__.setdefault('kept', []).append(sys.modules[__name__])\n"
    report = _check(write_plugin(tmp_path, "sticky", code), reloads=3)
    [leak] = _findings(report)["leaks"]
    assert leak.startswith("3 old generations of module ")
    assert _result(report, "leaks").verdict is Verdict.WARN


def test_code_that_serves_on_is_no_leak(tmp_path: Path, launch: Launch) -> None:
    """After a reload that fails, what is still in memory is the generation that serves."""
    code = "import string\nstring.loads = getattr(string, 'loads', 0) + 1\nassert string.loads < 4\n"
    report = _check_apart(write_plugin(tmp_path, "tiring", code), launch, reloads=3)
    assert list(_findings(report)) == ["reload"]
    assert _findings(report)["reload"][0].startswith("reload 2 failed: AssertionError")


def test_stream_without_end_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that begins and goes on is a stream; one that never begins is a warning."""
    code = """
    from fastapi.responses import StreamingResponse

    @router.get("/ticks")
    async def tick() -> StreamingResponse:
        \"\"\"Tick for ever.\"\"\"
        async def ticks():
            while True:
                yield b"tick"
                await asyncio.sleep(0.01)
        return StreamingResponse(ticks())

    @router.get("/never")
    async def never() -> None:
        \"\"\"Never answer.\"\"\"
        await asyncio.sleep(60)
    """
    monkeypatch.setattr(trials, "_PATIENCE", 0.2)
    report = _check(write_plugin(tmp_path, "ticking", code))
    assert _findings(report) == {"requests": ["did not begin to answer within 0.2 s"]}
    assert _result(report, "requests").note == "requests: 16, paths without input: 0, streams: 1"


def test_rate_of_the_plugin_hides_no_fault(tmp_path: Path) -> None:
    """All its endpoints are asked, however few requests it lets a client make."""
    code = """
    @router.get("/one")
    async def one() -> None:
        \"\"\"Fail.\"\"\"
        raise KeyError("one")

    @router.get("/two")
    async def two() -> None:
        \"\"\"Fail too.\"\"\"
        raise KeyError("two")
    """
    report = _check(write_plugin(tmp_path, "breaking", code, rate_limit="1/day"))
    assert len(_findings(report)["requests"]) == 2


def test_second_start_that_fails_is_found(tmp_path: Path) -> None:
    """A plugin that works once only fails `disable`, which enables it again."""
    code = "import string\n\ndef on_enable():\n    assert not hasattr(string, 'once')\n    string.once = True\n"
    report = _check(write_plugin(tmp_path, "once", code))
    assert _findings(report)["disable"][0].startswith("it cannot be enabled a second time: on_enable of plugin 'once'")


def test_one_fault_is_found_by_one_check(tmp_path: Path, launch: Launch) -> None:
    """What disabling leaves is found by `disable` alone, though later starts leave it too."""
    code = "import sys\n\ndef on_enable():\n    sys.path.append('/nowhere/at/all')\n"
    report = _check_apart(write_plugin(tmp_path, "littering", code), launch)
    assert _findings(report) == {"disable": ["import path /nowhere/at/all is left behind"]}
    assert _result(report, "failing start").note == "everything it had registered was undone"


def test_plugin_that_takes_its_process_down_is_reported(tmp_path: Path) -> None:
    """Leaving the process, or holding it up, is a finding of the check during which it happened."""
    leaving_folder = write_plugin(tmp_path, "leaving", "import os\nprint('bye', flush=True)\nos._exit(7)\n")
    leaving = run_check(leaving_folder, [], reloads=1, timeout=60)
    [finding] = _result(leaving, "load").findings
    assert finding.what == "its process ended with exit status 7 during this check"
    assert _result(leaving, "manifest").verdict is Verdict.OK
    hanging_folder = write_plugin(tmp_path, "hanging", "import time\ntime.sleep(60)\n")
    hanging = run_check(hanging_folder, [], reloads=1, timeout=10)
    assert _findings(hanging) == {"load": ["it did not end within 10 s during this check"]}


def test_tables_that_nobody_opens_are_named(run: CommandLine, tmp_path: Path) -> None:
    """As when they are granted, with those that are open; one that lies where others are found opens none itself."""
    run.patch.setenv("EXTRA_PLUGINS_DIRS", "own")
    folder = write_plugin(tmp_path / "own", "census", permissions=["db:read:users,no_table", "db:write:game_npcs"])
    done = run("plugins", "check", str(folder), "--reloads", "1", "--json").json
    [manifest] = [each for each in done["results"] if each["check"] == "manifest"]
    reading, writing = sorted(manifest["findings"], key=lambda each: str(each["what"]))
    assert manifest["verdict"] == reading["verdict"] == "warn"
    assert reading["what"].startswith("db:read of no_table is of no use: nobody opens that; open are: game_")
    assert writing["what"] == "db:write of game_npcs is of no use: nobody opens that; open are: game_npc_states"
    write_plugin(tmp_path / "own", "census", permissions=["db:read:users", "db:write"])
    assert "of no use" not in run("plugins", "check", str(folder), "--reloads", "1").out


def test_tables_without_migrations_are_found(run: CommandLine, launch: Launch) -> None:
    """Models need migrations that make what they say: a missing one and a differing one are findings."""
    folder = Path(run("plugins", "new", "my-feature", "--with", "db", "--json").json["folder"])
    models = folder / "models.py"
    models.write_text(models.read_text() + "    mood: Mapped[str | None]\n")
    [difference] = _findings(_check_apart(folder.absolute(), launch))["migrations"]
    assert difference == "models and migrations differ: column my_feature_greetings.mood is missing in the database"
    (folder / "migrations" / "0001_initial.py").unlink()
    (folder / "migrations").rmdir()
    [missing] = _findings(_check_apart(folder.absolute(), launch))["migrations"]
    assert missing == "no migration makes the tables of its models: my_feature_greetings"
    manifest = folder / "manifest.py"
    manifest.write_text(manifest.read_text().replace("version=", 'permissions=["db:own"],\n    version=', 1))
    own = _result(_check_apart(folder.absolute(), launch), "migrations")
    assert (own.verdict, own.note) == (Verdict.NOT_APPLICABLE, "it makes its own tables itself (db:own)")


def test_settings_that_are_missing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, launch: Launch) -> None:
    """Without a required setting it is blocked, with the variable to set; with it the trial goes on."""
    code = """
    from pydantic import BaseModel
    from typing import Any

    class Settings(BaseModel):
        token: str
        anything: Any = None

    settings_model = Settings
    """
    folder = write_plugin(tmp_path / "own", "needy", code)
    blocked = _check_apart(folder, launch)
    assert "token: is missing; set PLUGIN_NEEDY__TOKEN=" in _findings(blocked)["load"][0]
    monkeypatch.setenv("PLUGIN_NEEDY__TOKEN", "secret")
    result = _result(_check_apart(folder, launch), "settings")
    assert result.note == "required: token"
    assert [finding.what for finding in result.findings] == ["setting 'anything' takes any value"]


def test_secret_settings_are_no_fault(tmp_path: Path, launch: Launch) -> None:
    """A plugin may have a secret among its settings: where it is tried out secrets are stored encrypted, too."""
    code = f"""
        from pydantic import BaseModel, SecretStr

        class settings_model(BaseModel):
            token: SecretStr = SecretStr("")
        {textwrap.indent(GREETING, " " * 8)}"""
    report = _check_apart(write_plugin(tmp_path, "teller", code), launch)
    assert _findings(report) == {}


def test_every_check_is_documented() -> None:
    """docs/writing-plugins.md has each check with its weight and what it proves, and no other."""
    text = (PLUGINS_DIR.parents[1] / "docs" / "writing-plugins.md").read_text()
    rows = "".join(f"| {check.name} | {check.weight} | {check.proves} |\n" for check in CHECKS)
    assert f"| check | weight | what it proves |\n|---|---|---|\n{rows}\n" in text
