"""What SQLite asks before it compiles a statement: may this be read, changed, called? Only what is listed may.

SQLite asks for every column of every table that a statement touches, however it gets there: through views,
joins, subqueries, common table expressions and triggers too.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping

from .executor import READ_ONLY, REFUSED

__all__ = ["GAME", "OWN", "Authorizer"]

GAME = "game"
OWN = "main"
TOO_LONG = "57014"

_FUNCTIONS = frozenset(
    {
        "->", "->>", "abs", "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "avg", "ceil", "ceiling",
        "changes", "char", "coalesce", "cos", "cosh", "count", "cume_dist", "current_date", "current_time",
        "current_timestamp", "date", "datetime", "degrees", "dense_rank", "exp", "first_value", "floor",
        "glob", "group_concat", "hex", "ifnull", "iif", "instr", "json", "json_array", "json_array_length",
        "json_extract", "json_group_array", "json_group_object", "json_insert", "json_object", "json_patch",
        "json_quote", "json_remove", "json_replace", "json_set", "json_type", "json_valid", "julianday", "lag",
        "last_insert_rowid", "last_value", "lead", "length", "like", "likelihood", "likely", "ln", "log", "log10",
        "log2", "lower", "ltrim", "max", "min", "mod", "nth_value", "ntile", "nullif", "octet_length", "percent_rank",
        "pi", "pow", "power", "quote", "radians", "random", "rank", "replace", "round", "row_number",
        "rtrim", "sign", "sin", "sinh", "soundex", "sqrt", "strftime", "string_agg", "substr", "substring", "subtype",
        "sum", "tan", "tanh", "time", "timediff", "total", "total_changes", "trim", "trunc", "typeof", "unhex",
        "unicode", "unixepoch", "unlikely", "upper",
    }
)  # fmt: skip
_ALTERING = frozenset(
    {
        "sqlite_rename_table", "sqlite_rename_column", "sqlite_rename_test", "sqlite_rename_quotefix",
        "sqlite_drop_column", "sqlite_fail", "printf",
    }
)  # fmt: skip
"""What ALTER TABLE calls. A plugin may not: a format can ask for billions of letters, and nobody could interrupt it."""
_TABLE_FUNCTIONS = frozenset({"json_each", "json_tree"})
_OWN_SCHEMA_TABLES = frozenset({"sqlite_master", "sqlite_temp_master", "sqlite_sequence"})
_PRAGMAS = frozenset({"table_info", "table_xinfo", "index_list", "index_info", "foreign_key_list"})
_ROW_CHANGES = frozenset({sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE})
_DEFINITIONS = frozenset(
    {
        sqlite3.SQLITE_CREATE_TABLE,
        sqlite3.SQLITE_CREATE_INDEX,
        sqlite3.SQLITE_DROP_TABLE,
        sqlite3.SQLITE_DROP_INDEX,
        sqlite3.SQLITE_REINDEX,
    }
)
_WRITES = _ROW_CHANGES | _DEFINITIONS | {sqlite3.SQLITE_ALTER_TABLE}


class Authorizer:
    """Answers SQLite for one connection of one jail.

    ``read`` and ``write`` are columns by table of the game's database. While ``is_host`` is set, the host's own
    statements pass. ``denied`` is what was refused last, as a code and a sentence.
    """

    def __init__(
        self, read: Mapping[str, frozenset[str]], write: Mapping[str, frozenset[str]], *, own: bool, is_reader: bool
    ) -> None:
        self._read = read
        self._write = {} if is_reader else write
        self._own = own
        self._is_reader = is_reader
        self._countable = frozenset(map(str.lower, read)) | _TABLE_FUNCTIONS
        self.closed: frozenset[str] = frozenset()
        """Names of all tables, views and virtual tables that are not the plugin's own, in lower case."""
        self.is_host = True
        self.is_altering = False
        """The statement is an ALTER TABLE, and names none of the functions itself that this calls."""
        self.deadline = float("inf")
        """When the statement must be compiled: SQLite cannot be interrupted meanwhile, but asks again and again."""
        self.denied: tuple[str, str] | None = None

    def __call__(self, action: int, first: str | None, second: str | None, database: str | None, _: str | None) -> int:
        if time.monotonic() > self.deadline:
            self.denied = (TOO_LONG, "the statement took too long to be understood; write it with less nesting")
            return sqlite3.SQLITE_DENY
        if self.is_host or self._is_allowed(action, first or "", second or "", database):
            return sqlite3.SQLITE_OK
        if self.denied is None:
            self.denied = self._explain(action, first, second, database)
        return sqlite3.SQLITE_DENY

    def _is_allowed(self, action: int, first: str, second: str, database: str | None) -> bool:
        if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE):
            return True
        if action == sqlite3.SQLITE_FUNCTION:
            return second.lower() in _FUNCTIONS or (self.is_altering and second in _ALTERING)
        if action == sqlite3.SQLITE_READ:
            return self._may_read(first, second, database)
        if action == sqlite3.SQLITE_PRAGMA:
            return self._own and first in _PRAGMAS and database in (OWN, "temp")
        if action in _WRITES and not self._is_reader:
            return self._may_write(action, first, second, database)
        return False

    def _may_read(self, table: str, column: str, database: str | None) -> bool:
        if not column:
            return self._may_count(table.lower())
        if table in _TABLE_FUNCTIONS:
            return True
        if database in (OWN, "temp") and self._own:
            return not table.startswith("sqlite_") or table in _OWN_SCHEMA_TABLES
        return database == GAME and column in self._read.get(table, ())

    def _may_count(self, name: str) -> bool:
        """Tell whether something may stand in FROM of which no column is read, named as the statement writes it.

        What is no table is a common table expression; a name that is both is taken for the table.
        """
        return name in self._countable or name not in self.closed

    def _may_write(self, action: int, first: str, second: str, database: str | None) -> bool:
        if action == sqlite3.SQLITE_ALTER_TABLE:
            return self._own and first == OWN
        if self._own and (database == OWN or (action, first) == (sqlite3.SQLITE_UPDATE, "sqlite_temp_master")):
            return True  # renaming looks through the temporary tables too, of which there are none
        if action == sqlite3.SQLITE_UPDATE and database == GAME:
            return second in self._write.get(first, ())
        return False

    def _explain(self, action: int, first: str | None, second: str | None, database: str | None) -> tuple[str, str]:
        if action == sqlite3.SQLITE_READ:
            column = f"column {second!r} of table {first!r}" if second else f"table {first!r}"
            return REFUSED, f"{column} is not open to this plugin"
        if action == sqlite3.SQLITE_FUNCTION:
            return REFUSED, f"the function {second!r} is not open to plugins"
        if action in _WRITES and self._is_reader:
            return READ_ONLY, "this session can only read"
        if action in _ROW_CHANGES:
            place = f"column {second!r} of table {first!r}" if second else f"table {first!r}"
            return REFUSED, f"{place} is not open to this plugin for writing"
        return REFUSED, "a plugin may not run a statement of this kind"
