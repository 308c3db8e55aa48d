"""Where the database is: read from the environment, brought into one form, shown without its password."""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from .errors import DatabaseUrlError

DEFAULT_DATA_DIRECTORY = "data"
DEFAULT_FILE = "pixsim7.sqlite3"

_SECRET_PARAMETERS = frozenset({"password", "passfile", "sslpassword"})


def database_url_from_environment() -> str:
    """Return ``DATABASE_URL``, or else the embedded SQLite file under ``DATA_DIR`` (default ``./data``)."""
    configured = os.environ.get("DATABASE_URL", "").strip()
    return configured or f"sqlite:///{data_directory_from_environment() / DEFAULT_FILE}"


def data_directory_from_environment() -> Path:
    """Return ``DATA_DIR``, or else ``data`` in the working directory."""
    return Path(os.environ.get("DATA_DIR", "").strip() or DEFAULT_DATA_DIRECTORY)


def parse_url(text: str) -> URL:
    """Return the URL in its normal form: ``postgresql+psycopg`` or ``sqlite`` with a file.

    Raises:
        DatabaseUrlError: it is malformed, or of a database that is not supported. The text never
            contains what was given, which may hold a password.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise DatabaseUrlError("is not a URL") from None
    backend = url.drivername.partition("+")[0]
    if backend in ("postgres", "postgresql"):
        return url.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise DatabaseUrlError(f"names {backend!r}, which is not supported")
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise DatabaseUrlError("names no file; an in-memory SQLite database would be lost between connections")
    return url.set(drivername="sqlite", query={})


def redact(url: URL | str) -> str:
    """Return the URL for people: without password and other secrets, in the path or the query."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return "<not a URL>"
    query = {key: "redacted" if key in _SECRET_PARAMETERS else value for key, value in parsed.query.items()}
    return parsed.set(query=query).render_as_string(hide_password=True)
