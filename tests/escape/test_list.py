"""The list of attempts is whole."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

from tests.escape.elsewhere import ELSEWHERE

_ROOT = Path(__file__).parents[2]
_NUMBERED = re.compile(r"test_(\d{3})_")
_LAST = 105


def _tests_of(path: Path) -> list[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        each.name
        for each in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(each, functions) and each.name.startswith("test_")
    ]


def test_every_attempt_has_one_test() -> None:
    """Each number has one test, here or beside what it attacks."""
    here = [
        int(found[1])
        for path in Path(__file__).parent.glob("test_*.py")
        for name in _tests_of(path)
        if (found := _NUMBERED.match(name))
    ]
    count = Counter([*here, *ELSEWHERE])
    assert sorted(count) == list(range(1, _LAST + 1))
    assert {number: times for number, times in count.items() if times > 1} == {}


def test_what_is_elsewhere_is_there() -> None:
    """A test that is referred to exists."""
    gone = []
    for place in ELSEWHERE.values():
        file, _, name = place.partition("::")
        if not (_ROOT / file).exists() or name not in _tests_of(_ROOT / file):
            gone.append(place)
    assert gone == []
