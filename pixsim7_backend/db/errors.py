"""What can go wrong in the data layer, each cause a type. No text contains a password."""

from __future__ import annotations

from sqlalchemy.exc import DontWrapMixin


class DataLayerError(Exception):
    """Base of everything the data layer raises itself."""


class DatabaseUrlError(DataLayerError):
    """``DATABASE_URL`` is malformed or names a database that is not supported."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"DATABASE_URL {reason}; write it like sqlite:///data/pixsim7.sqlite3"
            " or postgresql://user:password@127.0.0.1:5432/pixsim7"
        )
        self.reason = reason


class DatabaseBusyError(DataLayerError):
    """Other requests or processes held what this one needed for too long. Trying again is fine."""

    def __init__(self, what: str, waited: float) -> None:
        super().__init__(f"{what} was not free within {waited:g} s; try again")
        self.what = what
        self.waited = waited


class ReadOnlySessionError(DataLayerError):
    """A session of ``get_db_readonly`` was asked to write, or to leave its read-only transaction."""

    def __init__(self, attempt: str) -> None:
        super().__init__(f"this session can only read, but was asked to {attempt}; depend on get_db to write")
        self.attempt = attempt


class UnstorableValueError(DataLayerError, ValueError, DontWrapMixin):
    """A value does not fit its column: the wrong type, out of range, or text that no database takes."""


class ConflictError(DataLayerError):
    """Others kept changing the same rows, and the attempts are used up. Nothing was written."""

    def __init__(self, attempts: int) -> None:
        super().__init__(
            f"the same rows were changed by others in each of {attempts} attempts; read them again and retry"
        )
        self.attempts = attempts


class CommitPointError(DataLayerError):
    """The installed FastAPI does not tell when an endpoint is done, so nothing can be committed in time."""

    def __init__(self, fastapi_version: str) -> None:
        super().__init__(
            f"FastAPI {fastapi_version} has no stack that is left before the response starts;"
            " install the FastAPI series that pyproject.toml names, or use `with database.session()` in the endpoint"
        )
        self.fastapi_version = fastapi_version


class MigrationError(DataLayerError):
    """Base of what can go wrong with the migrations of one plugin."""

    def __init__(self, message: str, *, plugin: str) -> None:
        super().__init__(message)
        self.plugin = plugin


class MigrationFailedError(MigrationError):
    """A revision raised; everything of this plugin's upgrade was rolled back."""

    def __init__(self, *, plugin: str, revision: str, cause: BaseException) -> None:
        super().__init__(
            f"migration {revision!r} of plugin {plugin!r} failed and was rolled back: {type(cause).__name__}: {cause}",
            plugin=plugin,
        )
        self.revision = revision
        self.__cause__ = cause


class UnknownRevisionError(MigrationError):
    """The database was migrated by another version of the plugin than the one installed."""

    def __init__(self, *, plugin: str, revision: str) -> None:
        super().__init__(
            f"the tables of plugin {plugin!r} are at revision {revision!r}, which the installed plugin does not have;"
            " install the version that was here before, or a newer one",
            plugin=plugin,
        )
        self.revision = revision


class MigrationScriptsError(MigrationError):
    """The plugin's migration files contradict each other or cannot be read."""

    def __init__(self, *, plugin: str, reason: str) -> None:
        super().__init__(f"the migrations of plugin {plugin!r} cannot be used: {reason}", plugin=plugin)
        self.reason = reason
