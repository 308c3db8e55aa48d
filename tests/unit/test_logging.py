from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest

from pixsim7_backend.infrastructure.plugins._ledger.ownership import AppKey, Entry, Owner, running_as
from pixsim7_backend.logging import ConsoleFormatter, JsonFormatter, LogFormat, StderrHandler, configure_logging
from pixsim7_backend.request_ids import current_request_id

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def not_configured() -> Iterator[None]:
    """Each test starts with nothing configured, whatever app of another test still runs in this process."""
    root = logging.getLogger()
    ours = [handler for handler in root.handlers if isinstance(handler, StderrHandler)]
    for handler in ours:
        root.removeHandler(handler)
    yield
    for handler in ours:
        root.addHandler(handler)


@pytest.fixture
def request_id() -> Iterator[str]:
    token = current_request_id.set("r-1")
    yield "r-1"
    current_request_id.reset(token)


def logged(capsys: Capture, log_format: LogFormat, message: str, *args: object, **options: object) -> str:
    undo = configure_logging(log_format)
    try:
        logging.getLogger("pixsim7.example").warning(message, *args, **options)  # type: ignore[arg-type]
    finally:
        undo()
    return capsys.readouterr().err


def test_console_line_is_as_the_guide_prints_it(capsys: Capture) -> None:
    """On the console a line has level, colon, blank and message, so that the guide's lines are there verbatim."""
    undo = configure_logging(LogFormat.CONSOLE)
    logging.getLogger("pixsim7.plugins").info("Discovered %d plugins: %s", 2, ["game_stealth", "my_feature"])
    undo()
    assert capsys.readouterr().err[9:] == "INFO: Discovered 2 plugins: ['game_stealth', 'my_feature']\n"


def test_json_line_is_one_object(capsys: Capture, request_id: str) -> None:
    """Where nobody watches, a line is one JSON object with time, level, logger, message and context."""
    owner = Owner(app=AppKey(), plugin="game-stealth", generation=1, package="p", directory="/p")
    with running_as(owner, Entry.REQUEST):
        line = json.loads(logged(capsys, LogFormat.AUTO, "caught %s", "thief", extra={"npc": 3}))
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "WARNING",
        "logger": "pixsim7.example",
        "message": "caught thief",
        "plugin": "game-stealth",
        "request_id": "r-1",
        "npc": 3,
    }


def test_console_line_names_plugin_and_request(capsys: Capture, request_id: str) -> None:
    """On the console the context follows the message."""
    owner = Owner(app=AppKey(), plugin="game-stealth", generation=1, package="p", directory="/p")
    with running_as(owner, Entry.REQUEST):
        text = logged(capsys, LogFormat.CONSOLE, "caught")
    assert text[9:] == "WARNING: caught  plugin=game-stealth request_id=r-1\n"


@pytest.mark.parametrize("log_format", [LogFormat.CONSOLE, LogFormat.JSON])
def test_control_characters_are_escaped(capsys: Capture, log_format: LogFormat) -> None:
    """A logged value can neither forge a line nor drive the terminal."""
    text = logged(capsys, log_format, "name %s", "x\r\n12:00:00 INFO: forged\x1b[31m\x9b\u2028")
    assert text.count("\n") == 1
    assert text.endswith("\n")
    assert not {"\r", "\x1b", "\x9b", "\u2028"} & set(text)


def test_traceback_is_logged(capsys: Capture) -> None:
    """An exception's traceback follows its line on the console and is a field in JSON."""
    try:
        raise ValueError("inner")
    except ValueError:
        record = logging.getLogger("x").makeRecord("x", logging.ERROR, "f", 1, "failed", (), sys.exc_info())
    console = ConsoleFormatter(is_coloured=False).format(record).splitlines()
    assert console[0].endswith("ERROR: failed")
    assert console[-1] == "ValueError: inner"
    assert json.loads(JsonFormatter().format(record))["traceback"].endswith("ValueError: inner")


def test_colours_leave_the_line_readable() -> None:
    """Colour goes around level and message, not between them."""
    record = logging.getLogger("x").makeRecord("x", logging.ERROR, "f", 1, "failed", (), None)
    assert "ERROR: failed" in ConsoleFormatter(is_coloured=True).format(record)


def test_level_is_respected(capsys: Capture) -> None:
    """Lines below the level are not written."""
    undo = configure_logging(LogFormat.CONSOLE, "ERROR")
    logging.getLogger("pixsim7.example").warning("hidden")
    undo()
    assert capsys.readouterr().err == ""


def test_uvicorn_is_routed_and_given_back(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uvicorn's lines are written once, in our format, and the undo restores what was there."""
    uvicorn, error = logging.getLogger("uvicorn"), logging.getLogger("uvicorn.error")
    own = [logging.StreamHandler(io.StringIO())]
    for logger, handlers, propagates in ((uvicorn, own, False), (error, [], True)):
        monkeypatch.setattr(logger, "handlers", handlers)
        monkeypatch.setattr(logger, "propagate", propagates)
        monkeypatch.setattr(logger, "disabled", False)
    level = error.level
    error.setLevel(logging.INFO)
    undo = configure_logging(LogFormat.CONSOLE)
    error.info("started")
    undo()
    error.setLevel(level)
    assert capsys.readouterr().err[9:] == "INFO: started\n"
    assert (uvicorn.handlers, uvicorn.propagate) == (own, False)


def test_second_call_changes_nothing(capsys: Capture) -> None:
    """Configuring twice writes each line once, and only the first undo takes the handler away."""
    outer = configure_logging(LogFormat.CONSOLE)
    inner = configure_logging(LogFormat.JSON)
    inner()
    logging.getLogger("pixsim7.example").warning("once")
    outer()
    assert capsys.readouterr().err[9:] == "WARNING: once\n"
    assert not any(isinstance(handler, StderrHandler) for handler in logging.getLogger().handlers)


def test_chatty_libraries_are_quiet(capsys: Capture) -> None:
    """What libraries tell at INFO is left out, and their level is put back."""
    logger = logging.getLogger("alembic")
    before = logger.level
    undo = configure_logging(LogFormat.CONSOLE)
    logging.getLogger("alembic.runtime").info("Context impl")
    undo()
    assert capsys.readouterr().err == ""
    assert logger.level == before
