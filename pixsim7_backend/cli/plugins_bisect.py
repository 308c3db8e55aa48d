"""``pixsim7 plugins bisect``: find the plugin, or the plugins together, that make a command fail."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import typer

from pixsim7_backend.cli.desired import read_desired
from pixsim7_backend.cli.output import CommandError, JsonFlag, print_json, say
from pixsim7_backend.cli.plugins import Directory, planned
from pixsim7_backend.infrastructure.plugins import DesiredState
from pixsim7_backend.infrastructure.plugins.preview import (
    Ending,
    Finding,
    Plan,
    Verdict,
    essential_plugins,
    find_culprits,
)
from pixsim7_backend.settings import load_settings

_SKIP = 125
_NEVER_RAN = {126: "cannot be executed", 127: "was not found"}


def bisect(
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND…", help="Exit status 0: good; 125: skip; else bad.")
    ],
    timeout: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds after which a run is ended and counts as bad.")
    ] = None,
    directory: Directory = None,
    as_json: JsonFlag = False,
) -> None:
    """Run a command with fewer and fewer plugins until those that make it fail are found.

    Each run gets other DISABLED_PLUGINS in its environment, never lacks what a plugin in it requires,
    and always has the required plugins. Nothing is changed that would have to be put back. The
    command's output is shown only when it cannot be run.
    """
    settings = load_settings()
    granted = DesiredState(grants=read_desired(settings).grants)  # without which confined plugins would be held back
    plan = planned(settings, [directory] if directory else None, desired=granted)
    always = essential_plugins(plan)
    runs = Runs(command, plan, timeout)
    finding = find_culprits([each for each in plan.order if each not in always], plan.requires, runs, always=always)
    if as_json:
        print_json(_as_json(finding, runs))
    else:
        say(describe(finding))
    if finding.ending is not Ending.FOUND:
        raise typer.Exit(1)


@dataclass(slots=True)
class Runs:
    """Carries out runs one after the other, each told in a line on standard error."""

    command: list[str]
    plan: Plan
    timeout: float | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    done: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, enabled: frozenset[str]) -> Verdict:
        """Run the command with these plugins only."""
        started = time.monotonic()
        status = self._run({**self.environ, **environment(self.plan, enabled)})
        verdict = judge(self.command, status)
        took = time.monotonic() - started
        self.done.append(
            {"enabled": sorted(enabled), "verdict": str(verdict), "status": status, "seconds": round(took, 3)}
        )
        ended = "was ended after its time" if status is None else f"ended with {status}"
        sys.stderr.write(f"run {len(self.done)}: {len(enabled)} plugins: {verdict} ({ended}, {took:.1f} s)\n")
        sys.stderr.flush()
        return verdict

    def _run(self, environ: dict[str, str]) -> int | None:
        """Return the exit status, None when the time was over."""
        try:
            done = subprocess.run(  # noqa: S603  # the operator's own command, as it was given
                self.command,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=self.timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None
        except OSError as error:
            raise CommandError(f"cannot run {self.command[0]!r}: {error.strerror}", exit_status=2) from None
        return done.returncode


def environment(plan: Plan, enabled: frozenset[str]) -> dict[str, str]:
    """Return the variables with which a process has exactly these plugins, and leaves no trace of how it ended."""
    off = sorted(plan.candidates.keys() - enabled)
    return {"DISABLED_PLUGINS": ",".join(off), "SAFE_MODE": "false", "REMEMBER_CRASHES": "false"}


def judge(command: list[str], status: int | None) -> Verdict:
    """Return what an exit status says; one of a shell that could not run the command ends the search."""
    if status in _NEVER_RAN:
        raise CommandError(f"{' '.join(command)!r} {_NEVER_RAN[status]} (exit status {status})", exit_status=2)
    if status == 0:
        return Verdict.GOOD
    return Verdict.SKIP if status == _SKIP else Verdict.BAD


def describe(finding: Finding) -> str:
    """Return the finding in a sentence or two."""
    after = f"after {finding.runs} runs"
    if finding.ending is Ending.ALWAYS_GOOD:
        return f"the command succeeds with all plugins ({after}); there is nothing to find"
    if finding.ending is Ending.ALWAYS_BAD:
        return f"the command fails even with required plugins only ({after}); no other plugin is the cause"
    names = ["one of " + ", ".join(group) if len(group) > 1 else group[0] for group in finding.groups]
    if finding.ending is Ending.UNDECIDED:
        return f"undecided {after}, since too many were skipped; suspected: {' together with '.join(names) or 'none'}"
    if len(names) == 1:
        return f"found {after}: {names[0]}\nto go on without it: DISABLED_PLUGINS={names[0]}"
    return f"found {after}: {' together with '.join(names)}; without any of them the command succeeds"


def _as_json(finding: Finding, runs: Runs) -> dict[str, Any]:
    return {
        "ending": str(finding.ending),
        "culprits": list(finding.culprits),
        "groups": [list(group) for group in finding.groups],
        "runs": runs.done,
    }
