"""The data layer: sessions that are committed before the answer, models of plugins, migrations.

from pixsim7_backend.db import get_db

@router.post("/do-something")
def do_something(db: Session = Depends(get_db)): ...
"""

from __future__ import annotations

from .conflicts import lock_row, lock_row_async, retry_on_conflict, retry_on_conflict_async
from .database import Database
from .default import check_database, default_database, set_default_database
from .dependencies import (
    AsyncDbSession,
    AsyncReadOnlyDb,
    DbSession,
    ReadOnlyDb,
    database_of,
    get_async_db,
    get_async_db_readonly,
    get_db,
    get_db_readonly,
)
from .errors import (
    ConflictError,
    DatabaseBusyError,
    DatabaseUrlError,
    DataLayerError,
    ReadOnlySessionError,
    UnstorableValueError,
)
from .locks import exclusive
from .urls import database_url_from_environment, redact

__all__ = [
    # dependencies
    "get_db", "get_db_readonly", "get_async_db", "get_async_db_readonly",
    "DbSession", "ReadOnlyDb", "AsyncDbSession", "AsyncReadOnlyDb",
    # the database itself
    "Database", "database_of", "default_database", "set_default_database", "check_database",
    "database_url_from_environment", "redact",
    # concurrency
    "lock_row", "lock_row_async", "retry_on_conflict", "retry_on_conflict_async", "exclusive",
    # errors
    "DataLayerError", "ConflictError", "DatabaseBusyError", "DatabaseUrlError", "ReadOnlySessionError",
    "UnstorableValueError",
]  # fmt: skip
