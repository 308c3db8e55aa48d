"""Lines of a jail in the host's log."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from pixsim7_backend.infrastructure.plugins._jail.services.log import JailLog, LogLimits
from pixsim7_backend.logging import ConsoleFormatter, JsonFormatter, add_context

FORGED = (
    "ok\n12:00:00 ERROR: the database is gone  plugin=auth",
    "ok\r\x1b[2K\x1b[1A12:00:00 ERROR: forged",
    "ok\u2028forged", "ok\u2029forged", "ok\x85forged", "ok\x0bforged", "ok\x0cforged", "ok\x9b31mforged",
    "\u202egnol si siht", "zero\u200bwidth", "\ud800", "bell\x07", "\x1b]0;title\x07", '"}\n{"level": "ERROR"',
)  # fmt: skip


class Output:
    """What a log writes, in one of the backend's formats."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.handler.setFormatter(formatter)
        self.handler.addFilter(add_context)

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()


@pytest.fixture(params=["console", "json", "plain"])
def output(request: pytest.FixtureRequest) -> Iterator[Output]:
    """The log of all jails."""
    formatters = {
        "console": ConsoleFormatter(is_coloured=False), "json": JsonFormatter(),
        "plain": logging.Formatter("%(levelname)s %(name)s %(message)s plugin=%(plugin)s"),
    }  # fmt: skip
    made = Output(formatters[request.param])
    logger = logging.getLogger("pixsim7.plugins.jail")
    logger.addHandler(made.handler)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    yield made
    logger.removeHandler(made.handler)
    logger.setLevel(level)


class Clock:
    """Time that stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_is_the_plugin_s(output: Output) -> None:
    """Its text and its own logger are there, and whose it is."""
    JailLog("quest-stats")(logging.WARNING, "quest_stats.rules", "no quests")
    (line,) = output.lines
    for part in ("WARNING", "no quests", "quest_stats.rules", "quest-stats"):
        assert part in line


@pytest.mark.parametrize("text", FORGED)
def test_attack_forged_log_lines(output: Output, text: str) -> None:
    """Whatever a plugin writes is one line, of the plugin, that can be seen as it is; in every format."""
    bare = logging.Formatter("%(message)s").format(logging.makeLogRecord({"msg": text}))
    assert not bare.isprintable(), "bare, it breaks the line or is not what is seen"
    log = JailLog("quest-stats")
    log(logging.INFO, "app", text)
    log(logging.INFO, text, "fine")
    assert len(output.lines) == 2
    assert all(line.isprintable() and "quest-stats" in line for line in output.lines)


def test_levels_are_levels(output: Output) -> None:
    """However large or small the number is that a jail gives."""
    log = JailLog("quest-stats")
    for level in (-(2**40), 0, 2**40):
        log(level, "app", "text")
    shown = [line for line in output.lines if "DEBUG" in line or "CRITICAL" in line]
    assert len(shown) == 3


def test_long_lines_are_cut(output: Output) -> None:
    """The rest of them is nobody's."""
    JailLog("quest-stats", LogLimits(length=100))(logging.INFO, "n" * 5000, "x" * 5000)
    (line,) = output.lines
    assert "x" * 100 + "…" in json.loads(f'"{line}"' if not line.startswith("{") else json.dumps(line))
    assert "x" * 101 not in line
    assert "n" * 101 not in line


def test_attack_log_flood(output: Output) -> None:
    """A hundred thousand lines become as many as are allowed, and one that counts the others."""
    bare = logging.getLogger("pixsim7.plugins.jail.bare")
    for _ in range(1000):
        bare.info("bare, all of them are written", extra={"plugin": "bare"})
    assert len(output.lines) == 1000
    clock = Clock()
    log = JailLog("quest-stats", LogLimits(burst=10, per_second=2), clock=clock)
    for number in range(100_000):
        log(logging.CRITICAL, "app", f"line {number}")
    assert len(output.lines) == 1010
    clock.now += 1.5
    for number in range(10):
        log(logging.INFO, "app", f"later {number}")
    dropped, *later = output.lines[1010:]
    assert "99990 lines dropped" in dropped
    assert len(later) == 3
    log.close()
    assert "7 lines dropped" in output.lines[-1]
    assert log.dropped == 99_997
