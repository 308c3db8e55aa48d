"""Where the database is."""

from __future__ import annotations

from pathlib import Path

import pytest

from pixsim7_backend.db import Database, DatabaseUrlError, check_database, redact, set_default_database
from pixsim7_backend.db.urls import database_url_from_environment, parse_url


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg", "postgresql+asyncpg"])
def test_postgresql_is_spoken_through_psycopg(scheme: str) -> None:
    """All common spellings mean the same driver."""
    url = parse_url(f"{scheme}://user:p%40ss@host:5433/name?sslmode=require")
    assert url.render_as_string(hide_password=False) == (
        "postgresql+psycopg://user:p%40ss@host:5433/name?sslmode=require"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("secret", "is not a URL"),
        ("postgresql://user:secret@host:port/x", "is not a URL"),
        ("mysql://user:secret@host/name", "names 'mysql', which is not supported"),
        ("sqlite://", "names no file; an in-memory SQLite database would be lost between connections"),
        ("sqlite:///:memory:", "names no file; an in-memory SQLite database would be lost between connections"),
    ],
)
def test_unusable_urls_are_told_without_their_password(text: str, reason: str) -> None:
    """The text says what is wrong and how to write it right."""
    with pytest.raises(DatabaseUrlError) as caught:
        Database(text)
    assert str(caught.value) == (
        f"DATABASE_URL {reason}; write it like sqlite:///data/pixsim7.sqlite3"
        " or postgresql://user:password@127.0.0.1:5432/pixsim7"
    )
    assert "secret" not in repr(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://user:secret@host/name", "postgresql://user:***@host/name"),
        ("postgresql://host/name?user=me&password=secret", "postgresql://host/name?password=redacted&user=me"),
        ("redis://:secret@127.0.0.1:6379/0", "redis://:***@127.0.0.1:6379/0"),
        ("se cret", "<not a URL>"),
    ],
)
def test_passwords_are_not_shown(url: str, shown: str) -> None:
    """Neither in the place for them nor in the query."""
    assert redact(url) == shown


def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """DATABASE_URL wins, else a SQLite file under DATA_DIR, else under ./data."""
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("DATA_DIR", raising=False)
    assert database_url_from_environment() == "sqlite:///data/pixsim7.sqlite3"
    monkeypatch.setenv("DATA_DIR", "/srv/pixsim7")
    assert database_url_from_environment() == "sqlite:////srv/pixsim7/pixsim7.sqlite3"
    monkeypatch.setenv("DATABASE_URL", " postgresql://host/name ")
    assert database_url_from_environment() == "postgresql://host/name"


def test_the_embedded_default_makes_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readable for the owner only, ignored by version control, and nothing is made before it is needed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("DATA_DIR", raising=False)
    database = Database(database_url_from_environment())
    assert not (tmp_path / "data").exists()
    with database.session():
        pass
    database.ping()
    database.close()
    assert {file.name for file in (tmp_path / "data").iterdir()} == {"pixsim7.sqlite3", ".gitignore"}
    assert (tmp_path / "data" / ".gitignore").read_text() == "*\n"
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_a_relative_file_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changing the working directory later does not change the database."""
    monkeypatch.chdir(tmp_path)
    database = Database("sqlite:///some dir/a#b%2520.sqlite3")
    monkeypatch.chdir("/")
    with database.session(), database.readonly_session():
        pass
    assert database.file == tmp_path / "some dir" / "a#b%20.sqlite3"
    database.close()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "postgresql://user:secret@127.0.0.1:1/name",
            "the database postgresql+psycopg://user:***@127.0.0.1:1/name does not answer (",
        ),
        ("mysql://user:secret@host/name", "DATABASE_URL names 'mysql', which is not supported; "),
        ("sqlite:////proc/nowhere/x.sqlite3", "the database sqlite:////proc/nowhere/x.sqlite3 does not answer ("),
    ],
)
def test_what_does_not_answer_is_said_in_a_sentence(url: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The check never raises, names the setting and keeps the password."""
    monkeypatch.setenv("DATABASE_URL", url)
    set_default_database(None)
    try:
        problem = check_database()
    finally:
        set_default_database(None)
    assert problem is not None
    assert problem.startswith(expected)
    assert "DATABASE_URL" in problem
    assert "secret" not in problem
    assert "\n" not in problem


def test_a_file_that_is_no_database_does_not_answer(tmp_path: Path) -> None:
    """The check really reads something."""
    file = tmp_path / "notes.txt"
    file.write_text("this is not a database, but long enough to look at" * 100)
    set_default_database(Database(f"sqlite:///{file}"))
    try:
        problem = check_database()
    finally:
        set_default_database(None)
    assert problem is not None
    assert "(file is not a database)" in problem


def test_a_database_that_answers_is_fine(database: Database) -> None:
    """None means that it can be used."""
    set_default_database(database)
    try:
        assert check_database() is None
    finally:
        set_default_database(None)
    assert "***" not in repr(database)
