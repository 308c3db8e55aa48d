"""The database of this process, for code that has no app: made from the environment when first asked for."""

from __future__ import annotations

import threading

from .database import Database
from .errors import DataLayerError
from .urls import database_url_from_environment, redact


class _Process:
    """What this process uses where no app says otherwise."""

    mutex = threading.Lock()
    database: Database | None = None


def default_database() -> Database:
    """Return the process's database; the first call makes it from ``DATABASE_URL`` and ``DATA_DIR``."""
    with _Process.mutex:
        if _Process.database is None:
            _Process.database = Database(database_url_from_environment())
        return _Process.database


def set_default_database(database: Database | None) -> None:
    """Use this database where an app has none in ``app.state.database``; None: ask the environment again."""
    with _Process.mutex:
        _Process.database = database


def check_database() -> str | None:
    """Return None when the configured database answers, else a sentence that names the setting."""
    try:
        database = default_database()
        database.ping()
    except DataLayerError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - whatever a driver raises means that it cannot be used
        reason = (str(getattr(error, "orig", None) or error).splitlines() or [type(error).__name__])[0]
        return f"the database {redact(database.url)} does not answer ({reason}); start it, or correct DATABASE_URL"
    return None
