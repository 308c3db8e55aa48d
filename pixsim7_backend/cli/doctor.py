"""``pixsim7 doctor``: is everything there that the backend needs, and if not, what to do."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path

import typer
from rich.text import Text

from pixsim7_backend import __version__
from pixsim7_backend.cli.output import CommandError, JsonFlag, print_json, print_table
from pixsim7_backend.cli.plugins import community_options, plugin_directories
from pixsim7_backend.cli.serve import check_address
from pixsim7_backend.infrastructure.plugins import DesiredState, PluginError
from pixsim7_backend.infrastructure.plugins.preview import preview, probe_machine
from pixsim7_backend.settings import Settings, SettingsError, load_settings

_LIBRARIES = ("fastapi", "starlette", "pydantic", "sqlalchemy", "alembic", "uvicorn")
_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


class Verdict(StrEnum):
    """How a thing is: only a problem makes the command fail."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; ``detail`` has the way out where something is wrong."""

    what: str
    verdict: Verdict
    detail: str


def doctor(as_json: JsonFlag = False) -> None:
    """Look at Python, libraries, settings, database, Redis, port and plugins; exit status 1 if there is a problem."""
    findings = list(examine())
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        rows = [(each.what, Text(each.verdict, _COLOURS[each.verdict]), each.detail) for each in findings]
        print_table(("what", "state", "detail"), rows)
    if any(finding.verdict is Verdict.PROBLEM for finding in findings):
        raise typer.Exit(1)


def examine() -> Iterator[Finding]:
    """Yield what was found, one thing after the other; nothing is changed."""
    yield _python()
    yield Finding("pixsim7-backend", Verdict.OK, __version__)
    yield Finding("libraries", Verdict.OK, ", ".join(f"{name} {version(name)}" for name in _LIBRARIES))
    try:
        settings = load_settings()
    except (SettingsError, PluginError) as error:
        yield Finding("settings", Verdict.PROBLEM, "; ".join(str(error).splitlines()))
        return
    yield Finding("settings", Verdict.OK, "debug is on: not for production" if settings.debug else "readable")
    yield _data_directory(settings)
    yield _database(settings)
    yield _redis(settings)
    yield _port(settings)
    yield _confinement(settings)
    yield from _plugins(settings)


def _python() -> Finding:
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info < (3, 11):  # noqa: UP036  # the doctor may be run where the package should not be
        return Finding("python", Verdict.PROBLEM, f"{found}; install Python 3.11 or newer")
    return Finding("python", Verdict.OK, found)


def _data_directory(settings: Settings) -> Finding:
    place = settings.data_dir.resolve()
    existing = next(path for path in (place, *place.parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK) or not existing.is_dir():
        return Finding("data directory", Verdict.PROBLEM, f"{place} is not writable; make it so, or set DATA_DIR")
    return Finding("data directory", Verdict.OK, str(place) + ("" if place.exists() else " (made when first needed)"))


def _database(settings: Settings) -> Finding:
    from pixsim7_backend.cli.db import pending_migrations

    if settings.is_embedded and not Path(settings.database.removeprefix("sqlite:///")).exists():
        return Finding("database", Verdict.OK, "embedded SQLite, made at the first start")
    try:
        pending = pending_migrations(settings)
    except CommandError as error:
        return Finding("database", Verdict.PROBLEM, str(error))
    if pending and not settings.is_embedded:
        names = ", ".join(pending)
        return Finding("database", Verdict.PROBLEM, f"migrations are pending ({names}); run `pixsim7 db upgrade`")
    return Finding("database", Verdict.OK, "embedded SQLite" if settings.is_embedded else "answers, up to date")


def _redis(settings: Settings) -> Finding:
    from pixsim7_backend.redis import check_redis
    from pixsim7_backend.resources import configured

    if not settings.redis_url.get_secret_value():
        return Finding("redis", Verdict.OK, "not configured; only plugins that require it need REDIS_URL")
    with configured(settings):
        problem = check_redis()
    return Finding("redis", Verdict.PROBLEM if problem else Verdict.OK, problem or "answers")


def _port(settings: Settings) -> Finding:
    try:
        check_address(settings)
    except CommandError as error:
        return Finding("port", Verdict.WARNING, str(error))
    return Finding("port", Verdict.OK, f"{settings.host}:{settings.port} is free")


def _confinement(settings: Settings) -> Finding:
    report = probe_machine()
    found = "; ".join(line.removeprefix("- ") for line in str(report).splitlines())
    if report.reaches(settings.community_floor):
        return Finding("confinement", Verdict.OK, found)
    way_out = (
        f"below COMMUNITY_FLOOR={settings.community_floor}, so that no community plugin runs; mend what is listed, or"
        f" set COMMUNITY_FLOOR={report.level.name.lower()} if you trust those that you install"
    )
    is_needed = Path(settings.community_plugins_dir).is_dir()
    return Finding("confinement", Verdict.PROBLEM if is_needed else Verdict.WARNING, f"{found}; {way_out}")


def _plugins(settings: Settings) -> Iterator[Finding]:
    from pixsim7_backend.cli.desired import read_desired
    from pixsim7_backend.db import DatabaseUrlError

    def redis() -> str | None:
        return None if settings.redis_url.get_secret_value() else "no Redis is configured; set REDIS_URL"

    try:
        desired = read_desired(settings)
    except DatabaseUrlError:  # which is said of the database
        desired = DesiredState()
    try:
        plan = preview(
            plugin_directories(settings),
            switched=desired.switched,
            **community_options(settings, desired),
            resources={"db": lambda: None, "redis": redis},
        )
    except PluginError as error:
        yield Finding("plugins", Verdict.PROBLEM, str(error))
        return
    yield Finding("plugins", Verdict.OK, f"{len(plan.order)} to load, {len(plan.held)} held back")
    for problem in plan.problems:
        yield Finding(f"plugin {problem.plugin}", Verdict.PROBLEM, str(problem))
    for warning in plan.warnings:
        yield Finding("plugins", Verdict.WARNING, warning)
