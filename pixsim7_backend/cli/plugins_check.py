"""``pixsim7 plugins check``: try a plugin out in a process of its own, and say what is wrong with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from pixsim7_backend.cli.output import CommandError, JsonFlag, print_json, print_lines
from pixsim7_backend.cli.plugins import plugin_directories
from pixsim7_backend.infrastructure.plugins._conformance import CheckResult, Finding, Report, Verdict
from pixsim7_backend.infrastructure.plugins._conformance.verdicts import complete
from pixsim7_backend.infrastructure.plugins._discovery.sources import find_directory
from pixsim7_backend.logging import escape
from pixsim7_backend.settings import load_settings

Launch = Callable[[Path, float], str]
"""Runs the process for the request in a directory, for so many seconds at most; returns how it ended."""

_COLOURS = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red", Verdict.NOT_RUN: "red"}
_SHOWN = {Verdict.NOT_RUN: "-", Verdict.NOT_APPLICABLE: "-"}


def check(
    path: Annotated[Path, typer.Argument(help="Folder of the plugin.")],
    *,
    plugins_dir: Annotated[
        list[Path] | None,
        typer.Option("--plugins-dir", help="Where its dependencies are, besides its neighbours; may be repeated."),
    ] = None,
    fail_under: Annotated[int, typer.Option(min=0, max=100, help="Exit status 1 below this score.")] = 0,
    reloads: Annotated[int, typer.Option(min=1, max=10_000, help="How often it is replaced.")] = 20,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that everything may take.")] = 300.0,
    as_json: JsonFlag = False,
) -> None:
    """Try a plugin out and say what is wrong with it; exit status 1 if anything failed.

    It runs in a process of its own, with an empty SQLite database of its own, and with your rights: nothing confines
    it. What a stranger's plugin asks for says `pixsim7 plugins add PATH --dry-run`, which runs nothing of it.
    """
    directories = [str(each) for each in plugins_dir or ()] or plugin_directories(load_settings())
    report = run_check(path.absolute(), directories, reloads=reloads, timeout=timeout)
    if as_json:
        print_json(report.to_json())
    else:
        print_lines(rendered(report))
    if not report.is_passed or report.score < fail_under:
        raise typer.Exit(1)


def start_process(place: Path, timeout: float) -> str:
    """Run the process that tries the plugin out; return how it ended, empty where it ended well."""
    command = [sys.executable, "-m", "pixsim7_backend.cli.check_process", str(place)]
    environment = {**os.environ, **settings_in(place)}
    with (place / "output.txt").open("wb") as output:
        process = subprocess.Popen(  # noqa: S603  # our own module
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            return f"it did not end within {timeout:g} s"
        finally:
            _end(process)
    return "" if status == 0 else f"its process ended with {_named(status)}"


def settings_in(place: Path) -> dict[str, str]:
    """Return the variables of the process that keep what it writes in ``place``."""
    database = f"sqlite:///{place / 'check.sqlite3'}"
    return {"DATA_DIR": str(place), "DATABASE_URL": database, "PYTHONDONTWRITEBYTECODE": "1"}


def run_check(
    folder: Path, directories: list[str], *, reloads: int, timeout: float, launch: Launch = start_process
) -> Report:
    """Run all checks of the plugin in ``folder`` in a process of their own, which ``launch`` starts.

    Raises:
        CommandError: there is no plugin in the folder, or a directory is not there.
    """
    with tempfile.TemporaryDirectory(prefix="pixsim7-check-") as place:
        request = {
            "folder": str(folder),
            "directories": [str(find_directory(each)) for each in directories],
            "reloads": reloads,
        }
        (Path(place) / "request.json").write_text(json.dumps(request))
        end = launch(Path(place), timeout)
        return _read_report(folder, Path(place), end)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process with everything that it started; nothing happens where it is gone."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _named(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"


def _read_report(folder: Path, place: Path, end: str) -> Report:
    file = place / "results.json"
    values: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    if error := values.get("error"):
        raise CommandError(error)
    results = [CheckResult.from_json(each) for each in values.get("results", ())]
    if end:
        lines = (place / "output.txt").read_text(errors="replace").splitlines()
        last = next((line.strip()[:300] for line in reversed(lines) if line.strip()), "it printed nothing")
        if "running" not in values:
            raise CommandError(f"the check could not begin, {end}: {last}")
        way = "look for what ends or holds up the process"
        finding = Finding(what=f"{end} during this check", where=last, way_out=way)
        results.append(CheckResult(check=values["running"], findings=(finding,)))
    return Report(plugin=values.get("plugin", folder.name), folder=str(folder), results=complete(results))


# --- for people -----------------------------------------------------------------------------------


def rendered(report: Report) -> Iterator[Text]:
    """Yield a line for each check, its findings below it, and the score."""
    yield Text.assemble((report.plugin, "bold"), f"  {escape(report.folder)}")
    for result in report.results:
        verdict = str(_SHOWN.get(result.verdict, result.verdict))
        yield Text.assemble(
            "  ",
            (f"{verdict:<5}", _COLOURS.get(result.verdict, "dim")),
            f" {result.check:<14} {_noted(result)}".rstrip(),
        )
        for finding in result.findings:
            yield from _rendered_finding(finding)
    counts = [sum(each.verdict is verdict for each in report.results) for verdict in (Verdict.FAIL, Verdict.WARN)]
    yield Text(f"score {report.score} of 100: {counts[0]} failed, {counts[1]} with warnings")


def _noted(result: CheckResult) -> str:
    return escape(result.note) if result.note else "not tried" if result.verdict is Verdict.NOT_RUN else ""


def _rendered_finding(finding: Finding) -> Iterator[Text]:
    where = f"  ({escape(finding.where)})" if finding.where else ""
    yield Text.assemble(" " * 8, (escape(finding.what), _COLOURS[finding.verdict]), where)
    if finding.way_out:
        yield Text(f"{' ' * 8}→ {escape(finding.way_out)}")
