"""Tries a plugin out in a private app and says what is wrong with it, for authors and for their CI.

    report = await check_plugin(Path("plugins/quests"), directories=[], host=ConformanceHost())
    report.score, report.is_passed, report.results

What the plugin's text shows is checked first (``source``, pure), then it is loaded, enabled, asked,
disabled and replaced (``trials``); ``verdicts`` has the checks with their weights. It runs the
plugin's code in this process: callers that do not want that start a process for it.
"""

from __future__ import annotations

from .run import ConformanceHost, check_plugin
from .verdicts import CHECKS, Check, CheckResult, Finding, Report, Verdict

__all__ = ["CHECKS", "Check", "CheckResult", "ConformanceHost", "Finding", "Report", "Verdict", "check_plugin"]
