"""A look at how a statement begins. Pure; grants and the authorizer are the boundary, this is a second fence.

It keeps out whole kinds of statements: those that end transactions, change the session, send messages, or run
code. What may begin a statement is listed, so that what a newer database learns is out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

__all__ = ["check_statement", "expanded_size"]

_QUERY = r"\(*\s*(?:SELECT|WITH|VALUES|TABLE)|INSERT\s+INTO|UPDATE|DELETE\s+FROM"
_DEFINITION = (
    r"CREATE\s+(?:UNIQUE\s+)?(?:TABLE|INDEX)|ALTER\s+TABLE|DROP\s+(?:TABLE|INDEX)|(?:CREATE|DROP)\s+(?:SEQUENCE|TYPE)"
    r"|COMMENT\s+ON\s+(?:TABLE|COLUMN)|PRAGMA\s+(?:main|temp)\.(?:table_info|table_xinfo|index_list|index_info|foreign_key_list)"
)
_USUAL = re.compile(rf"\s*(?:{_QUERY})\b", re.IGNORECASE)
_OWN = re.compile(rf"\s*(?:{_QUERY}|{_DEFINITION})\b", re.IGNORECASE)

_TOKEN = re.compile(
    r"""(?P<skip>[ \t\n\f\r]+|--[^\n]*|/\*(?:.*?\*/|.*))"""
    r"""|(?P<word>[A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*)"""
    r"""|(?P<quoted>"(?:[^"]|"")*(?:"|$)|'(?:[^']|'')*(?:'|$)|`(?:[^`]|``)*(?:`|$)|\[[^\]]*(?:\]|$))"""
    r"""|[$@:#][\w$:\x80-\U0010ffff]*(?:\([^ \t\n\f\r)]*\)?)?|\d[\w.]*|.""",
    re.DOTALL | re.ASCII,
)
"""What SQLite takes for one token; names may be quoted in four ways. Never fails: the text is read once."""
_WITH = re.compile(r"\bWITH\b", re.IGNORECASE | re.ASCII)
_LARGEST = 100_000
_MOST_NAMES = 50


def check_statement(statement: str, *, may_define: bool) -> str | None:
    """Return why the statement is refused, None where it is not; ``may_define``: tables of its own.

    A comment in front is refused too: what it hides would have to be understood first.
    """
    if "\x00" in statement:
        return "a statement cannot have a NUL character"
    if (_OWN if may_define else _USUAL).match(statement):
        size = expanded_size(statement) if _WITH.search(statement) else 0
        if size is None or size > _LARGEST:
            return (
                f"a statement may name {_MOST_NAMES} subqueries (WITH), each name once, and no more than {_LARGEST:,}"
                " words may come of it where each name is replaced by its subquery"
            )
        return None
    return (
        "a plugin's statement begins with SELECT, WITH, VALUES, TABLE, INSERT INTO, UPDATE or DELETE FROM"
        + (", or defines a table, an index, a sequence or a type" if may_define else "")
        + "; transactions and savepoints are those of the session"
    )


def expanded_size(statement: str) -> int | None:
    """Return how many words the statement has when each name of a ``WITH`` stands for its subquery.

    A database that puts the subquery wherever its name stands does so before it can be interrupted, and ten names
    that each use the one before twice are a thousand subqueries. None: nobody can tell, since a name is defined
    twice, names use one another in a circle, or there are too many.
    """
    words = list(_words(statement))
    bodies: dict[str, range] = {}
    for name, body in _definitions(words):
        if name in bodies or len(bodies) == _MOST_NAMES:
            return None
        bodies[name] = body
    uses = {name: _uses(words, body, bodies, but=name) for name, body in bodies.items()}
    sizes: dict[str, int] = {}
    while len(sizes) < len(bodies):
        ready = [name for name in bodies if name not in sizes and uses[name].keys() <= sizes.keys()]
        if not ready:
            return None
        for name in ready:
            sizes[name] = len(bodies[name]) + sum(count * sizes[used] for used, count in uses[name].items())
    return len(words) + sum(count * sizes[name] for name, count in _uses(words, range(len(words)), bodies).items())


def _uses(words: Sequence[tuple[str, bool]], where: range, names: Collection[str], *, but: str = "") -> Counter[str]:
    """Count the names that stand there; a name that is a column as well counts wherever it stands."""
    return Counter(words[at][0] for at in where if words[at][1] and words[at][0] in names and words[at][0] != but)


def _words(statement: str) -> Iterator[tuple[str, bool]]:
    """Yield the words, names as they are compared, and whether each is one."""
    for found in _TOKEN.finditer(statement):
        if quoted := found["quoted"]:
            end = "]" if quoted[0] == "[" else quoted[0]
            yield quoted[1:].removesuffix(end).replace(2 * end, end).lower(), True
        elif not found["skip"]:
            yield found[0].lower(), bool(found["word"])


def _definitions(words: Sequence[tuple[str, bool]]) -> Iterator[tuple[str, range]]:
    """Yield each ``name [(columns)] AS [[NOT] MATERIALIZED] (…)``, with where what is in the brackets stands."""
    closing = _pairs(words)
    opening = {end: start for start, end in closing.items()}
    for at, word in enumerate(words):
        if word != ("as", True) or at == 0:
            continue
        start = at + 1
        while start < len(words) and words[start][0] in ("not", "materialized"):
            start += 1
        before = opening.get(at - 1, at) - 1
        if start in closing and before >= 0 and words[before][1]:
            yield words[before][0], range(start + 1, closing[start])


def _pairs(words: Sequence[tuple[str, bool]]) -> dict[int, int]:
    """Return where each bracket that is opened is closed; at the end where it is not."""
    pairs, opened = {}, []
    for at, (word, _) in enumerate(words):
        if word == "(":
            opened.append(at)
        elif word == ")" and opened:
            pairs[opened.pop()] = at
    return {**dict.fromkeys(opened, len(words)), **pairs}
