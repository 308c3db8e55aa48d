from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = sorted(
    path
    for folder in ("pixsim7_backend", "tests", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
    if "__pycache__" not in path.parts
)
_BANNED = re.compile(r"^_*(utils?|helpers?|common|misc|data|info)$|^_*(handle|process|do)_")

_GIVEN = {  # named by SQLAlchemy, by httpx, and by the standard library's web server
    "process_bind_param", "process_result_value", "do_begin", "do_ping", "do_savepoint", "do_release_savepoint",
    "do_rollback_to_savepoint", "handle_request", "handle_async_request", "do_GET", "handle_error",
}  # fmt: skip


def _definitions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node


def _where(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}"


def test_every_test_says_what_it_proves() -> None:
    """Every test has a docstring that is a sentence."""
    silent = [
        _where(path, node)
        for path in CODE
        if path.name.startswith("test_")
        for node in _definitions(path)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_")
        if not (ast.get_docstring(node) or "").rstrip("`").endswith((".", "?", "!"))
    ]
    assert silent == []


def _is_banned(name: str) -> bool:
    return bool(_BANNED.match(name)) and name not in _GIVEN


def test_names_say_something() -> None:
    """No file, function or class has one of the names that mean nothing."""
    files = [str(path.relative_to(ROOT)) for path in CODE if _BANNED.match(path.stem)]
    names = [_where(path, node) for path in CODE for node in _definitions(path) if _is_banned(node.name)]
    assert files + names == []


def test_no_file_sprawls() -> None:
    """A file of the package stays small enough to be read in one go."""
    long = {
        str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in CODE if "tests" not in path.parts
    }
    assert {name: lines for name, lines in long.items() if lines > 450} == {}


def test_every_task_has_a_name() -> None:
    """Whoever looks at the tasks of a server, or at one that was never awaited, sees what each is for."""
    nameless = [
        _where(path, node)
        for path in CODE
        if path.relative_to(ROOT).parts[0] == "pixsim7_backend"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "create_task"
        if not any(keyword.arg == "name" for keyword in node.keywords)
    ]
    assert nameless == []


def test_nothing_is_left_for_later() -> None:
    """The code has no notes about work that is still to be done."""
    notes = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in CODE
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(r"\b(TO" "DO|FIX" "ME|X" r"XX)\b", line)
    ]
    assert notes == []


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "requirements").glob("*.txt")))
def test_lock_files_have_hashes_and_no_addresses(name: str) -> None:
    """Each locked requirement has hashes; nothing in the file says where it came from."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    requirements = [block for block in re.split(r"\n(?=\S)", text.strip()) if block]
    assert len(requirements) > 10
    for requirement in requirements:
        assert re.match(r"[a-z0-9.-]+==", requirement), requirement
        assert "--hash=sha256:" in requirement, requirement
    assert "://" not in text
    assert "find-links" not in text


def test_lock_files_hold_what_the_project_asks_for() -> None:
    """Every dependency and the build back end are locked; the tools have the same versions of what both lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    locks = {
        name: dict(
            re.findall(r"^([a-z0-9.-]+)==([^ ;\\]+)", (ROOT / "requirements" / f"{name}.txt").read_text(), re.MULTILINE)
        )
        for name in ("runtime", "dev")
    }

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[^a-z0-9_-]", each)[0].replace("_", "-") for each in requirements}

    groups = project["dependency-groups"]
    assert names(project["project"]["dependencies"]) | names(groups["build"]) <= locks["runtime"].keys()
    assert names(project["build-system"]["requires"]) <= locks["runtime"].keys()
    assert names(groups["dev"]) <= locks["dev"].keys()
    assert locks["runtime"].items() <= locks["dev"].items()


def test_every_ignored_rule_has_its_reason() -> None:
    """Each rule that ruff does not check stands beside a comment."""
    text = (ROOT / "pyproject.toml").read_text()
    ruff = text[text.index("[tool.ruff.lint]") : text.index("[tool.ruff.lint.mccabe]")]
    rules = [line for line in ruff.splitlines() if re.match(r'    "[A-Z]+[0-9]+",', line)]
    assert len(rules) > 20
    assert [line for line in rules if "#" not in line] == []


def test_no_path_of_one_machine_is_in_the_project() -> None:
    """No document or code names a home directory or a file server of somebody."""
    texts = [*CODE, *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "Makefile", ROOT / "pyproject.toml"]
    pattern = re.compile(r"/(home|root|Users)/\w|file:///")
    assert [
        str(path.relative_to(ROOT))
        for path in texts
        if path != Path(__file__) and pattern.search(path.read_text(encoding="utf-8"))
    ] == []
