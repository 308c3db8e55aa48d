"""A look at how a statement begins. Pure; grants and the authorizer are the boundary, this is a second fence.

It keeps out whole kinds of statements: those that end transactions, change the session, send messages, or run
code. What may begin a statement is listed, so that what a newer database learns is out.
"""

from __future__ import annotations

import re

__all__ = ["check_statement"]

_QUERY = r"\(*\s*(?:SELECT|WITH|VALUES|TABLE)|INSERT\s+INTO|UPDATE|DELETE\s+FROM"
_DEFINITION = (
    r"CREATE\s+(?:UNIQUE\s+)?(?:TABLE|INDEX)|ALTER\s+TABLE|DROP\s+(?:TABLE|INDEX)|(?:CREATE|DROP)\s+(?:SEQUENCE|TYPE)"
    r"|COMMENT\s+ON\s+(?:TABLE|COLUMN)|PRAGMA\s+(?:main|temp)\.(?:table_info|table_xinfo|index_list|index_info|foreign_key_list)"
)
_USUAL = re.compile(rf"\s*(?:{_QUERY})\b", re.IGNORECASE)
_OWN = re.compile(rf"\s*(?:{_QUERY}|{_DEFINITION})\b", re.IGNORECASE)


def check_statement(statement: str, *, may_define: bool) -> str | None:
    """Return why the statement is refused, None where it is not; ``may_define``: tables of its own.

    A comment in front is refused too: what it hides would have to be understood first.
    """
    if "\x00" in statement:
        return "a statement cannot have a NUL character"
    if (_OWN if may_define else _USUAL).match(statement):
        return None
    return (
        "a plugin's statement begins with SELECT, WITH, VALUES, TABLE, INSERT INTO, UPDATE or DELETE FROM"
        + (", or defines a table, an index, a sequence or a type" if may_define else "")
        + "; transactions and savepoints are those of the session"
    )
