"""Reading a manifest from the text of a file, without running it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from pixsim7_backend.infrastructure.plugins._discovery.manifest_source import (
    EXAMPLES,
    MAX_BYTES,
    DynamicManifest,
    check_complete,
    explain_problems,
    parse_manifest,
    read_manifest,
)
from pixsim7_backend.infrastructure.plugins.errors import InvalidManifestError
from pixsim7_backend.infrastructure.plugins.types import PluginManifest

FILE = Path("plugins/game_stealth/manifest.py")
IMPORT = "from pixsim7_backend.infrastructure.plugins.types import PluginManifest\n"
FIELDS = 'id="game-stealth", name="Stealth", version="1.0.0", description="Stealth mechanics"'


def parse(text: str | bytes) -> PluginManifest | DynamicManifest:
    """Read the text of a manifest.py."""
    source = text.encode() if isinstance(text, str) else text
    return parse_manifest(source, file=FILE, plugin="folder")


def literal(text: str | bytes) -> PluginManifest:
    """Read a text whose manifest is a literal."""
    found = parse(text)
    assert isinstance(found, PluginManifest), found
    return found


def dynamic(text: str) -> DynamicManifest:
    """Read a text whose manifest has to be imported."""
    found = parse(text)
    assert isinstance(found, DynamicManifest), found
    return found


def refusal(text: str | bytes) -> InvalidManifestError:
    """Read a text that is no manifest."""
    with pytest.raises(InvalidManifestError) as caught:
        parse(text)
    return caught.value


# --- literals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        IMPORT + f"manifest = PluginManifest({FIELDS})",
        IMPORT + f"manifest: PluginManifest = PluginManifest({FIELDS})",
        IMPORT + f"manifest: PluginManifest\nmanifest = PluginManifest({FIELDS})",
        IMPORT + f"about = manifest = PluginManifest({FIELDS})",
        "from pixsim7_backend.infrastructure.plugins import PluginManifest\n" + f"manifest = PluginManifest({FIELDS})",
        "from pixsim7_backend.infrastructure.plugins.types import PluginManifest as PM\n" + f"manifest = PM({FIELDS})",
        "from pixsim7_backend.infrastructure.plugins import types\n" + f"manifest = types.PluginManifest({FIELDS})",
        "from pixsim7_backend.infrastructure import plugins as p\n" + f"manifest = p.types.PluginManifest({FIELDS})",
        "import pixsim7_backend.infrastructure.plugins.types as t\n" + f"manifest = t.PluginManifest({FIELDS})",
        (
            "import pixsim7_backend.db\nimport pixsim7_backend.infrastructure.plugins.types\n"
            f"manifest = pixsim7_backend.infrastructure.plugins.types.PluginManifest({FIELDS})"
        ),
        "from pixsim7_backend.infrastructure.plugins.types import *\n" + f"manifest = PluginManifest({FIELDS})",
        "\ufeff" + IMPORT + f"manifest = PluginManifest({FIELDS})",
        IMPORT + f"def check(manifest):\n    manifest = None\n\nmanifest = PluginManifest({FIELDS})",
    ],
)
def test_every_way_to_write_a_plain_manifest(text: str) -> None:
    """Aliases, annotations and star imports are understood; local names elsewhere do not matter."""
    assert literal(text) == PluginManifest(
        id="game-stealth", name="Stealth", version="1.0.0", description="Stealth mechanics"
    )


def test_fields_may_be_sums_and_names_of_literals() -> None:
    """Constants of the module, joined texts, lists, tuples and what is unpacked in them."""
    manifest = literal(
        IMPORT
        + """
MAJOR, = (1,)
NAME = "Stealth"
VERSION: str = "1" + ".2"
COMMON = ("game",)
manifest = PluginManifest(
    id="game-stealth",
    name=f"Game {NAME} " "& Pickpocket",
    version=VERSION,
    description=(
        "Provides "
        "stealth"
    ) + " mechanics",
    tags=[*COMMON, "stealth"] + ["x"],
    dependencies=("game-sessions>=1.2,<2", "game_npcs"),
    requires_db=True,
)
"""
    )
    assert manifest.name == "Game Stealth & Pickpocket"
    assert manifest.version == "1.2"
    assert manifest.description == "Provides stealth mechanics"
    assert manifest.tags == ("game", "stealth", "x")
    assert manifest.dependencies == ("game-sessions>=1.2,<2", "game_npcs")


def test_nothing_of_the_file_runs(tmp_path: Path) -> None:
    """Reading has no effect, whatever the file would do when imported."""
    marker = tmp_path / "marker"
    text = f"open({str(marker)!r}, 'w')\n{IMPORT}manifest = PluginManifest({FIELDS})\nraise SystemExit\n"
    assert literal(text).id == "game-stealth"
    assert not marker.exists()


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-8-sig", "cp1252"])
def test_the_encoding_is_the_one_the_file_declares(encoding: str) -> None:
    """PEP 263 and the byte-order mark are honoured."""
    declared = "utf-8" if encoding == "utf-8-sig" else encoding
    text = f"# -*- coding: {declared} -*-\n{IMPORT}manifest = PluginManifest({FIELDS}, author='Jörg')"
    assert literal(text.encode(encoding)).author == "Jörg"


# --- what only an import would tell -------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        (
            IMPORT + 'import os\nmanifest = PluginManifest(id="a", name="A", version="1",\n  description=os.name)',
            4,
            "`description` is computed",
        ),
        (IMPORT + f"X = ['a']\nX.append('b')\nmanifest = PluginManifest({FIELDS}, tags=X)", 4, "`tags` is computed"),
        (IMPORT + f"for X in 'ab': pass\nmanifest = PluginManifest({FIELDS}, author=X)", 3, "`author` is computed"),
        (IMPORT + f"manifest = PluginManifest({FIELDS}, author=X)\nX = 'late'", 2, "`author` is computed"),
        (IMPORT + f"X = 'a'\nX = 'b'\nmanifest = PluginManifest({FIELDS}, author=X)", 4, "`author` is computed"),
        (IMPORT + f"X = Y\nY = X\nmanifest = PluginManifest({FIELDS}, author=X)", 2, "`author` is computed"),
        (IMPORT + f"manifest = PluginManifest({FIELDS}, author='a' * 3)", 2, "`author` is computed"),
        (IMPORT + f"manifest = PluginManifest({FIELDS}, author=f'{{1:>5}}')", 2, "`author` is computed"),
        (IMPORT + f"manifest = PluginManifest({FIELDS}, **{{'author': 'a'}})", 2, "what `**` adds is computed"),
        (
            IMPORT + f"if True:\n    manifest = PluginManifest({FIELDS})",
            3,
            "`manifest` is not assigned exactly once, at the top level",
        ),
        (
            IMPORT + f"manifest = PluginManifest({FIELDS})\nmanifest = manifest.model_copy()",
            3,
            "`manifest` is not assigned exactly once, at the top level",
        ),
        (
            IMPORT + f"def f():\n    global manifest\n    manifest = 1\nmanifest = PluginManifest({FIELDS})",
            3,
            "`manifest` is not assigned exactly once, at the top level",
        ),
        ("from .about import manifest", 1, "`manifest` is not assigned exactly once, at the top level"),
        ("x = 1\nfrom .about import *", 2, "`manifest` may come from `import *`"),
        (
            IMPORT + f"manifest = PluginManifest({FIELDS})\nfrom .about import *",
            2,
            "`manifest` is not assigned exactly once, at the top level",
        ),
        (
            "def make(): ...\nmanifest = make()",
            2,
            "`manifest` is not written as `PluginManifest(...)` imported from pixsim7_backend.infrastructure.plugins",
        ),
        (
            f"from sdk import PluginManifest\nmanifest = PluginManifest({FIELDS})",
            2,
            "`manifest` is not written as `PluginManifest(...)` imported from pixsim7_backend.infrastructure.plugins",
        ),
    ],
)
def test_what_is_computed_is_named_with_its_line(text: str, line: int, what: str) -> None:
    """Valid Python whose meaning the text does not tell is said to be so, and nothing is guessed."""
    found = dynamic(text)
    assert (found.line, found.what) == (line, what)
    assert str(found) == f"{FILE}:{line}: {what}"


def test_the_literal_fields_of_a_computed_manifest_are_known() -> None:
    """``enabled=False`` can be believed even where the description is computed."""
    found = dynamic(
        IMPORT + "manifest = PluginManifest(id='a', name=str(1), version='1', description='', enabled=False)"
    )
    assert found.known == {"id": "a", "version": "1", "description": "", "enabled": False}


def test_texts_cannot_be_made_to_fill_the_memory() -> None:
    """Doubling a text sixty times is not done."""
    doubling = "A0 = 'xx'\n" + "".join(f"A{i + 1} = A{i} + A{i}\n" for i in range(60))
    found = dynamic(f"{IMPORT}{doubling}manifest = PluginManifest(id='a', name=A60, version='1', description='')")
    assert found.what == "`name` is computed"


# --- what is wrong ------------------------------------------------------------------------------


def test_all_problems_are_told_with_file_line_field_and_example() -> None:
    """In the order of the file; the line is that of the field, or of the item in it."""
    error = refusal(
        IMPORT
        + """\
manifest = PluginManifest(
    id="game stealth",
    version="one",
    tgas=["x"],
    dependencies=[
        "game-sessions",
        "game npcs",
    ],
    tags="stealth",
    enabled="perhaps",
    name=3,
    replace="later",
)
"""
    )
    assert error.plugin == "folder"
    assert str(error).startswith(f"{FILE}:2: `description` is missing")
    assert list(error.fields["problems"]) == [
        '`description` is missing; add `description="Provides stealth mechanics"` (line 2)',
        (
            "`id`: 'game stealth' is not a plugin id: lower-case letters, digits and single hyphens,"
            " starting with a letter, like 'game-stealth' (line 3)"
        ),
        "`version`: 'one' is not a PEP 440 version; write it like '1.0.0' (line 4)",
        "unknown field 'tgas'; did you mean 'tags'? (line 5)",
        (
            "`dependencies[1]`: 'game npcs' is not a plugin id with an optional PEP 440 range;"
            " write it like 'game-sessions' or 'game-sessions>=1.2,<2' (line 8)"
        ),
        '`tags`: input should be a list of strings; write it like `tags=["game-stealth"]` (line 10)',
        (
            "`enabled`: input should be a valid boolean, unable to interpret input;"
            " write it like `enabled=True` (line 11)"
        ),
        '`name`: input should be a valid string; write it like `name="Game Stealth"` (line 12)',
        "`replace`: input should be 'beside' or 'stop-first'; write it like `replace=\"beside\"` (line 13)",
    ]


def test_a_folder_must_say_what_it_is() -> None:
    """Name, version and description have no defaults there; the id, being valid, names the plugin."""
    error = refusal(IMPORT + 'manifest = PluginManifest(id="game-combat", dependencies=["game-npcs"])')
    assert error.plugin == "game-combat"
    assert [problem.partition(" is ")[0] for problem in error.fields["problems"]] == [
        "`description`",
        "`name`",
        "`version`",
    ]


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("x = 1\n", None, 'does not define `manifest`; add `manifest = PluginManifest(id="game-stealth"'),
        ("", None, "does not define `manifest`"),
        ("manifest = None", 1, "`manifest` is None, not a PluginManifest"),
        ("\n\ndef f(:\n  pass", 3, "syntax error: invalid syntax"),
        ("x = (\n", 1, "syntax error: '(' was never closed"),
        ("if 1:\n\tx\n        y", 3, "syntax error: inconsistent use of tabs"),
        (b"x = '\xff'", 1, "syntax error: (unicode error) 'utf-8' codec can't decode byte 0xff"),
        (b"# coding: no-such-thing\n", None, "syntax error: unknown encoding: no-such-thing"),
        (b"# coding: hex\nx = 1", None, "syntax error: "),
        (b"x = 1\ny = '\0'", 2, "contains a NUL byte; it is no text"),
        ("(" * 5000 + ")" * 5000, 1, "syntax error: too many nested parentheses"),
        ("x = " + "-" * 100_000 + "1", None, ""),  # how it fails depends on the version of Python
        ("x = " + "+".join(["1"] * 100_000), None, ""),
        ("#" * (MAX_BYTES + 1), None, "is larger than 2,000,000 bytes"),
        (IMPORT + f"manifest = PluginManifest({FIELDS}, id='b')", 2, "`id` is given twice"),
        (IMPORT + "manifest = PluginManifest('a')", 2, "PluginManifest takes named fields only, like `id=...`"),
    ],
)
def test_whatever_the_bytes_are_the_error_is_typed(text: str | bytes, line: int | None, problem: str) -> None:
    """No file crashes the reader; the text says what is wrong and where."""
    error = refusal(text)
    where = f"{FILE}:{line}" if line else f"{FILE}"
    assert str(error).startswith(f"{where}: ")
    assert problem in str(error)


def test_a_broken_literal_counts_even_beside_a_computed_field() -> None:
    """What is certainly wrong is told before anything is imported."""
    error = refusal(IMPORT + "manifest = PluginManifest(id='a', name=str(1), version='one', description='')")
    assert list(error.fields["problems"]) == [
        "`version`: 'one' is not a PEP 440 version; write it like '1.0.0' (line 2)"
    ]


def test_warnings_of_the_parser_are_left_to_the_import() -> None:
    r"""A ``\d`` in some text of the file does not disturb reading it."""
    assert literal(IMPORT + f"PATTERN = '\\d'\nmanifest = PluginManifest({FIELDS})").id == "game-stealth"


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_random_bytes_never_crash_the_reader(source: bytes) -> None:
    """Every input is a manifest, a computed one, or an InvalidManifestError."""
    try:
        parse(source)
    except InvalidManifestError as error:
        refused = str(error)
    else:
        refused = str(FILE)
    assert refused.startswith(str(FILE))


TOKENS = (
    *("manifest", " = ", "PluginManifest", "(", ")", "id=", "'a'", ", ", "name=", "version=", "'1'", "description="),
    *("[", "]", "**", "{}", ":", "\n", "  ", "import ", "from ", "*", "f'{X}'", "X", "+", "lambda: ", "if ", "global "),
    *("def ", ".", "tags=", "1", "not ", "class ", "x:="),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(TOKENS), max_size=25).map("".join))
def test_random_python_never_crashes_the_reader(text: str) -> None:
    """The same for texts that are nearly manifests."""
    try:
        found = parse(IMPORT + text)
    except InvalidManifestError as error:
        assert error.fields["problems"]  # noqa: PT017  # being refused is one of three good outcomes
    else:
        assert isinstance(found, (PluginManifest, DynamicManifest))


# --- files --------------------------------------------------------------------------------------


def test_what_is_no_readable_file_is_a_typed_error(tmp_path: Path) -> None:
    """A directory, nothing, a link to itself, a pipe and a name with a NUL are all refused at once."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    places = [tmp_path, *(tmp_path / name for name in ("absent", "loop", "dangling", "pipe", "a\0b"))]
    for place in places:
        with pytest.raises(InvalidManifestError, match=r"cannot be read|is not a regular file") as caught:
            read_manifest(place, plugin="p")
        assert caught.value.plugin == "p"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_a_typed_error(tmp_path: Path) -> None:
    """The operating system's reason is in the text."""
    file = tmp_path / "manifest.py"
    file.write_text("")
    file.chmod(0)
    with pytest.raises(InvalidManifestError, match="cannot be read: Permission denied"):
        read_manifest(file, plugin="p")


def test_a_good_file_is_read(tmp_path: Path) -> None:
    """Through a link too."""
    (tmp_path / "real.py").write_text(IMPORT + f"manifest = PluginManifest({FIELDS})")
    (tmp_path / "manifest.py").symlink_to(tmp_path / "real.py")
    found = read_manifest(tmp_path / "manifest.py", plugin="p")
    assert isinstance(found, PluginManifest)


# --- for manifests that were imported -----------------------------------------------------------


def test_an_imported_manifest_must_be_complete_too() -> None:
    """The same fields are asked for, with the same examples."""
    with pytest.raises(InvalidManifestError) as caught:
        check_complete(PluginManifest(id="a", name="A"), file=FILE, plugin="a")
    assert list(caught.value.fields["problems"]) == [
        '`version` is missing; add `version="1.0.0"`',
        '`description` is missing; add `description="Provides stealth mechanics"`',
    ]
    check_complete(PluginManifest(id="a", name="A", version="1", description="d"), file=FILE, plugin="a")


def test_a_validation_error_in_words() -> None:
    """What pydantic says of an imported manifest becomes one sentence per field."""
    with pytest.raises(ValidationError) as caught:
        PluginManifest.model_validate({"version": "one", "tags": "x"})
    assert explain_problems(caught.value) == [
        '`id` is missing; add `id="game-stealth"`',
        "`version`: 'one' is not a PEP 440 version; write it like '1.0.0'",
        '`tags`: input should be a list of strings; write it like `tags=["game-stealth"]`',
    ]
    with pytest.raises(ValidationError) as unknown:
        PluginManifest.model_validate({"id": "a", "tgas": []})
    assert explain_problems(unknown.value) == ["unknown field 'tgas'; did you mean 'tags'?"]


def test_every_field_has_a_correct_example() -> None:
    """Each example is accepted when written into a manifest."""
    assert set(EXAMPLES) == set(PluginManifest.model_fields)
    assert literal(IMPORT + f"manifest = PluginManifest({', '.join(EXAMPLES.values())})").id == "game-stealth"
