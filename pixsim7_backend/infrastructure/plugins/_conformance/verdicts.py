"""What is checked and how much it counts, what was found, and the score that follows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    NOT_RUN = "not run"
    """An earlier failure, or the end of the run, left it untried: it counts as failed."""
    NOT_APPLICABLE = "not applicable"
    """The plugin has nothing of the kind: it does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong or odd: what, where, and the way out."""

    what: str
    where: str = ""
    way_out: str = ""
    verdict: Verdict = Verdict.FAIL

    def __str__(self) -> str:
        where = f" ({self.where})" if self.where else ""
        return f"{self.what}{where}" + (f"; {self.way_out}" if self.way_out else "")

    def to_json(self) -> dict[str, str]:
        """Return the finding as JSON-able values."""
        return {"verdict": str(self.verdict), "what": self.what, "where": self.where, "way_out": self.way_out}


def warning(what: str, *, where: str = "", way_out: str = "") -> Finding:
    """Return a finding that lowers the score and fails nothing."""
    return Finding(what=what, where=where, way_out=way_out, verdict=Verdict.WARN)


@dataclass(frozen=True, slots=True)
class Check:
    """One check: its name, how much of the score hangs on it, and what it proves."""

    name: str
    weight: int
    proves: str


CHECKS = (
    Check(
        "manifest",
        10,
        "the manifest is read without running the plugin, is complete, fits the folder, asks for no closed table",
    ),
    Check("imports", 5, "only plugins that `dependencies` names are imported"),
    Check("events", 5, "what it emits is declared, what it declares is emitted"),
    Check("blocking", 5, "nothing in `async def` obviously blocks the event loop"),
    Check("load", 10, "it is imported and loaded beside what it requires"),
    Check("enable", 10, "it is enabled, and healthy where it can tell"),
    Check("openapi", 5, "its operations have ids of their own, descriptions and its tags; its schemas are qualified"),
    Check("requests", 10, "concurrent requests to what needs no input are answered without an error"),
    Check("settings", 5, "missing settings stop it with a clear reason, and wrong ones are refused"),
    Check("migrations", 5, "its migrations make what its models say, and can be taken back"),
    Check("disable", 10, "disabling leaves nothing behind, and it can be enabled again"),
    Check("failing start", 5, "a start that fails at its end undoes what it had registered"),
    Check("reload", 10, "it is replaced again and again while it serves"),
    Check("leaks", 5, "replaced code dies, and memory does not grow"),
)
"""In the order in which they run; the weights add up to 100."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """What one check came to; ``note`` is a figure or a circumstance."""

    check: str
    findings: tuple[Finding, ...] = ()
    note: str = ""
    ended: Verdict = Verdict.OK
    """How it ended where there are no findings."""

    @property
    def verdict(self) -> Verdict:
        verdicts = {finding.verdict for finding in self.findings}
        return Verdict.FAIL if Verdict.FAIL in verdicts else Verdict.WARN if verdicts else self.ended

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON-able values."""
        return {
            "check": self.check,
            "verdict": str(self.verdict),
            "note": self.note,
            "findings": [finding.to_json() for finding in self.findings],
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> CheckResult:
        """Return what :meth:`to_json` was made of."""
        findings = tuple(Finding(**{**each, "verdict": Verdict(each["verdict"])}) for each in values["findings"])
        ended = Verdict.OK if findings else Verdict(values["verdict"])
        return cls(check=values["check"], findings=findings, note=values["note"], ended=ended)


_SHARE = {Verdict.OK: 1.0, Verdict.WARN: 0.5, Verdict.FAIL: 0.0, Verdict.NOT_RUN: 0.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The results of all checks of one plugin, in the order of :data:`CHECKS`."""

    plugin: str
    folder: str
    results: tuple[CheckResult, ...] = field(default=())

    @property
    def score(self) -> int:
        """Out of 100: the weights of the checks that apply; a warning earns half of one, a failure nothing."""
        weights = {check.name: check.weight for check in CHECKS}
        applied = [each for each in self.results if each.verdict in _SHARE]
        total = sum(weights[each.check] for each in applied)
        earned = sum(weights[each.check] * _SHARE[each.verdict] for each in applied)
        return int(100 * earned / total) if total else 0

    @property
    def is_passed(self) -> bool:
        """Nothing failed and nothing was left untried."""
        return not any(each.verdict in (Verdict.FAIL, Verdict.NOT_RUN) for each in self.results)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON-able values."""
        return {
            "plugin": self.plugin,
            "folder": self.folder,
            "score": self.score,
            "passed": self.is_passed,
            "results": [result.to_json() for result in self.results],
        }


def complete(results: Iterable[CheckResult]) -> tuple[CheckResult, ...]:
    """Return the results in the order of the checks, those that are missing as not run."""
    found = {result.check: result for result in results}
    return tuple(found.get(each.name, CheckResult(check=each.name, ended=Verdict.NOT_RUN)) for each in CHECKS)


def inapplicable(check: str, note: str) -> CheckResult:
    """Return the result of a check that has nothing to look at."""
    return CheckResult(check=check, note=note, ended=Verdict.NOT_APPLICABLE)


def result_of(check: str, findings: Sequence[Finding], note: str = "") -> CheckResult:
    """Return the result with these findings."""
    return CheckResult(check=check, findings=tuple(findings), note=note)
