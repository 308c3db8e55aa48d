from __future__ import annotations

import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest

from pixsim7_backend.cli.scaffold import FEATURES, BadPluginIdError, NewPlugin, check_new_id, render, write
from tests.command_line import CommandLine

ROOT = Path(__file__).parents[3]
SELECTIONS = [",".join(chosen) for count in range(len(FEATURES) + 1) for chosen in combinations(FEATURES, count)]


def _run(*command: str, place: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)


def test_new_plugins_pass_their_own_tests(run: CommandLine, tmp_path: Path) -> None:
    """With whatever it comes: the tests that are written with a plugin pass, warnings being errors."""
    for number, selection in enumerate(["", *FEATURES, ",".join(FEATURES)]):
        done = run("plugins", "new", f"feature-{number}", "--into", "own", "--with", selection)
        assert done.status == 0, done.err
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "own"]
    tests = _run(*command, place=tmp_path)
    assert tests.returncode == 0, tests.stdout + tests.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["own"]


def test_new_plugins_are_written_as_the_project_is(tmp_path: Path) -> None:
    """Formatter, linter and type checker have nothing to say about any of them."""
    for number, selection in enumerate(SELECTIONS):
        features = frozenset(selection.split(",")) & set(FEATURES)
        name = 'A "quoted" name' if number % 2 else "It's \\ one"
        plugin = NewPlugin(id=f"feature-{number}", name=name, description="Says so.", author="Ann", features=features)
        write(plugin, tmp_path)
    config = ["--config", str(ROOT / "pyproject.toml")]
    # Where a plugin lies decides these two: outside a package here, below pixsim7_backend/plugins at home.
    ignored = ["--ignore", "INP001,D103"]
    ruff = [sys.executable, "-m", "ruff"]
    for command in (
        [*ruff, "format", "--no-cache", "--check", *config, "."],
        [*ruff, "check", "--no-cache", *config, *ignored, "."],
    ):
        done = _run(*command, place=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr


def test_it_says_what_was_written_and_what_to_do_next(run: CommandLine, tmp_path: Path) -> None:
    """The folder and the next commands are printed; those that start the server find the folder."""
    done = run("plugins", "new", "my-feature")
    assert done.out == (
        "wrote plugins/my_feature\n\nnext:\n"
        "  pytest plugins/my_feature\n"
        "  pixsim7 plugins check plugins/my_feature\n"
        "  EXTRA_PLUGINS_DIRS=plugins pixsim7 serve --reload-plugins\n"
        "  curl http://127.0.0.1:8000/api/v1/my-feature/hello\n"
    )
    assert (tmp_path / "plugins" / "my_feature" / "manifest.py").exists()


def test_own_directory_is_the_default(run: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where EXTRA_PLUGINS_DIRS is set the plugin goes there, also while that is not made yet."""
    monkeypatch.setenv("EXTRA_PLUGINS_DIRS", "mine")
    written = run("plugins", "new", "my-feature", "--with", "db", "--json").json
    assert written["folder"] == "mine/my_feature"
    assert written["files"] == [
        "__init__.py",
        "manifest.py",
        "migrations/0001_initial.py",
        "models.py",
        "tests/test_my_feature.py",
    ]
    assert written["next"][2] == "pixsim7 serve --reload-plugins"


def test_what_exists_is_never_touched(run: CommandLine, tmp_path: Path) -> None:
    """A second plugin of the same name is refused, and so is an id that another directory has already."""
    run("plugins", "new", "my-feature")
    manifest = tmp_path / "plugins" / "my_feature" / "manifest.py"
    manifest.write_text("mine")
    done = run("plugins", "new", "my-feature")
    assert (done.status, done.out) == (1, "")
    assert done.err == "error: plugins/my_feature exists already; choose another id, or remove it\n"
    assert manifest.read_text() == "mine"
    done = run("plugins", "new", "auth")
    assert done.status == 1
    assert done.err.startswith("error: there is a plugin 'auth' already, in ")


@pytest.mark.parametrize(
    ("wrong", "suggestion"),
    [
        ("My_Feature", "my-feature"),
        ("myFeature", "my-feature"),
        ("../evil", "evil"),
        ("9lives", "plugin-9lives"),
        ("class", "plugin-class"),
        ("tests", "plugin-tests"),
        ("Größe", "gr-e"),
        ("", "plugin"),
    ],
)
def test_bad_id_is_refused_with_a_good_one(wrong: str, suggestion: str) -> None:
    """The error names what is wrong with it and an id that would do."""
    with pytest.raises(BadPluginIdError) as caught:
        check_new_id(wrong)
    assert str(caught.value).startswith(f"{wrong!r} cannot be a plugin id: ")
    assert caught.value.suggestion == suggestion
    assert check_new_id(suggestion) == suggestion


def test_wrong_usage_is_status_two(run: CommandLine, tmp_path: Path) -> None:
    """A bad id, an unknown feature and a text that no manifest takes are wrong usage; nothing is written."""
    for arguments in (["Bad Id"], ["fine", "--with", "db,cache"], ["fine", "--name", "x" * 121]):
        done = run("plugins", "new", *arguments)
        assert done.status == 2, arguments
        assert done.err.startswith("error: ")
    assert list(tmp_path.iterdir()) == []


def test_what_the_author_says_is_in_the_manifest() -> None:
    """Quotes, backslashes and dollars arrive as they were given."""
    plugin = NewPlugin(id="odd", name='The "odd" one', description=r"costs $5 \ more", author="O'Hara")
    text = render(plugin)["manifest.py"]
    found: dict[str, object] = {}
    exec(compile(text.split("router =")[0], "manifest.py", "exec"), found)  # noqa: S102  # our own template
    manifest = found["manifest"]
    assert (manifest.name, manifest.description, manifest.author) == (  # type: ignore[attr-defined]
        'The "odd" one',
        r"costs $5 \ more",
        "O'Hara",
    )
