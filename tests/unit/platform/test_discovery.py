"""Finding plugins in directories and installed packages."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pixsim7_backend.infrastructure.plugins._discovery.sources import (
    INSTALLATION,
    discover,
    discover_directory,
    discover_entry_points,
    find_directory,
)
from pixsim7_backend.infrastructure.plugins._plan.plan import Candidate
from pixsim7_backend.infrastructure.plugins.errors import (
    EntryPointError,
    InvalidManifestError,
    MissingManifestError,
    PluginDirectoryError,
    PluginFolderError,
)
from pixsim7_backend.infrastructure.plugins.records import SourceRank

MANIFEST = """\
from pixsim7_backend.infrastructure.plugins.types import PluginManifest
manifest = PluginManifest(id={id!r}, name="N", version="1", description={description}{more})
"""


def write(folder: Path, plugin_id: str | None = None, *, more: str = "", description: str = "'d'") -> Path:
    """Write a plugin's folder with both files."""
    folder.mkdir(parents=True)
    name = folder.name.replace("_", "-") if plugin_id is None else plugin_id
    (folder / "manifest.py").write_text(MANIFEST.format(id=name, more=more, description=description))
    (folder / "__init__.py").write_text("")
    return folder


def by_folder(directory: Path, rank: SourceRank = SourceRank.FIRST_PARTY) -> dict[str, Candidate]:
    """Discover one directory."""
    return {each.source.folder: each for each in discover_directory(directory, rank=rank)}


# --- folders ------------------------------------------------------------------------------------


def test_folders_come_sorted_and_what_is_no_plugin_is_left_out(tmp_path: Path) -> None:
    """Files, hidden folders, caches and folders with neither file are not plugins."""
    for name in ("zeta", "alpha", "game_stealth"):
        write(tmp_path / name)
    write(tmp_path / ".hidden")
    write(tmp_path / "__pycache__")
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "readme.txt").write_text("no plugin")
    (tmp_path / "manifest.py").write_text("not in a folder")
    found = discover([tmp_path], entry_points=[])
    assert found.folders == ("alpha", "game_stealth", "zeta")
    assert [each.id for each in found.candidates] == ["alpha", "game-stealth", "zeta"]
    assert all(each.manifest and not each.error and not each.warnings for each in found.candidates)


def test_an_empty_directory_has_no_plugins(tmp_path: Path) -> None:
    """That is no error."""
    assert discover([tmp_path], entry_points=[]).candidates == ()


def test_a_folder_with_init_alone_is_a_failed_plugin(tmp_path: Path) -> None:
    """The error says what to add."""
    (tmp_path / "my_feature").mkdir()
    (tmp_path / "my_feature" / "__init__.py").write_text("")
    candidate = by_folder(tmp_path)["my_feature"]
    assert candidate.id == "my-feature"
    assert isinstance(candidate.error, MissingManifestError)
    assert str(candidate.error) == (
        f"{tmp_path}/my_feature has no manifest.py; add one that defines `manifest = PluginManifest(...)` and `router`"
    )


def test_manifest_alone_is_enough(tmp_path: Path) -> None:
    """The guide's summary: create ``plugins/my_feature/manifest.py``, done."""
    (write(tmp_path / "my_feature") / "__init__.py").unlink()
    assert by_folder(tmp_path)["my_feature"].manifest is not None


def test_a_manifest_in_init_does_not_count(tmp_path: Path) -> None:
    """Only ``manifest.py`` is read."""
    folder = write(tmp_path / "a")
    (folder / "manifest.py").rename(folder / "__init__.py")
    assert isinstance(by_folder(tmp_path)["a"].error, MissingManifestError)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda file: file.write_text("manifest = ("), "1: syntax error: '(' was never closed"),
        (lambda file: file.write_text("router = 1"), " does not define `manifest`"),
        (lambda file: file.write_bytes(b"\x00"), "1: contains a NUL byte"),
        (lambda file: file.mkdir(), " is not a regular file"),
        (lambda file: file.symlink_to(file), " cannot be read: Too many levels of symbolic links"),
        (lambda file: file.symlink_to(file.parent / "gone"), " cannot be read: No such file or directory"),
    ],
)
def test_a_bad_manifest_fails_its_folder_only(tmp_path: Path, make: Callable[[Path], None], problem: str) -> None:
    """Whatever lies there, the other folders are read."""
    write(tmp_path / "good")
    folder = write(tmp_path / "bad")
    (folder / "manifest.py").unlink()
    make(folder / "manifest.py")
    found = by_folder(tmp_path)
    assert found["good"].error is None
    assert found["bad"].id == "bad"
    assert isinstance(found["bad"].error, InvalidManifestError)
    assert f"{folder}/manifest.py:{problem}" in str(found["bad"].error)


def test_links_are_followed_and_those_that_lead_nowhere_are_no_plugins(tmp_path: Path) -> None:
    """A linked folder is a plugin of this directory; a circle or a dangling link is nothing."""
    write(tmp_path / "elsewhere" / "linked")
    directory = tmp_path / "plugins"
    directory.mkdir()
    (directory / "linked").symlink_to(tmp_path / "elsewhere" / "linked")
    (directory / "loop").symlink_to(directory / "loop")
    (directory / "gone").symlink_to(tmp_path / "nowhere")
    found = by_folder(directory)
    assert list(found) == ["linked"]
    assert found["linked"].source.path == directory / "linked"


@pytest.mark.parametrize(
    ("folder", "suggestion"),
    [
        ("my-feature", "my_feature"),
        ("My Feature", "my_feature"),
        ("2fast", "plugin_2fast"),
        ("class", "plugin_class"),
        ("a.b", "a_b"),
    ],
)
def test_a_folder_that_python_cannot_import_fails_with_a_better_name(
    tmp_path: Path, folder: str, suggestion: str
) -> None:
    """The manifest may be as good as it likes."""
    write(tmp_path / folder, "my-feature")
    candidate = by_folder(tmp_path)[folder]
    assert isinstance(candidate.error, PluginFolderError)
    assert str(candidate.error) == (
        f"{tmp_path}/{folder}: {folder!r} cannot be imported as a Python package; rename the folder to {suggestion!r}"
    )


def test_an_id_that_is_not_the_folders_is_a_warning(tmp_path: Path) -> None:
    """Hyphens and underscores are the same; anything else is told."""
    write(tmp_path / "stealth", "game-stealth")
    candidate = by_folder(tmp_path)["stealth"]
    assert candidate.error is None
    assert candidate.warnings == (
        "plugin 'game-stealth' lies in folder 'stealth'; rename the folder to 'game_stealth', or change the id",
    )


def test_folders_that_differ_in_case_only_are_two(tmp_path: Path) -> None:
    """Both are found, with the id that each one claims; the plan decides."""
    write(tmp_path / "Game", "game")
    if (tmp_path / "game").exists():
        pytest.skip("this file system does not tell cases apart")
    write(tmp_path / "game")
    assert [each.id for each in discover_directory(tmp_path)] == ["game", "game"]


# --- manifests that are not literal -------------------------------------------------------------


def test_a_computed_manifest_is_left_to_be_imported(tmp_path: Path) -> None:
    """Neither manifest nor error: the manager has to import it."""
    write(tmp_path / "a", description="str(1)")
    candidate = by_folder(tmp_path)["a"]
    assert (candidate.id, candidate.manifest, candidate.error) == ("a", None, None)


def test_a_computed_manifest_that_is_off_need_not_be_imported(tmp_path: Path) -> None:
    """What is literal in it is enough to know that it stays off."""
    write(tmp_path / "a", description="str(1)", more=", enabled=False")
    manifest = by_folder(tmp_path)["a"].manifest
    assert manifest is not None
    assert (manifest.enabled, manifest.version, manifest.description) == (False, "1", "")


def test_what_is_not_trusted_must_be_literal(tmp_path: Path) -> None:
    """Its code is not run to find out; the error names the field and the line."""
    write(tmp_path / "a", description="str(1)")
    candidate = by_folder(tmp_path, SourceRank.COMMUNITY)["a"]
    assert str(candidate.error) == (
        f"{tmp_path}/a/manifest.py:2: `description` is computed,"
        " but this plugin's code is not run to find out; write it as a literal"
    )


# --- directories --------------------------------------------------------------------------------


def test_a_relative_directory_is_under_the_working_directory_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then beside the installed package; then it is an error that names both places."""
    work, installation = tmp_path / "work", tmp_path / "site"
    (installation / "app" / "plugins").mkdir(parents=True)
    work.mkdir()
    monkeypatch.chdir(work)
    assert find_directory("app/plugins", installation=installation) == installation / "app" / "plugins"
    (work / "app" / "plugins").mkdir(parents=True)
    assert find_directory("app/plugins", installation=installation) == work / "app" / "plugins"
    assert find_directory("./app/../app/plugins", installation=installation) == work / "app" / "plugins"
    with pytest.raises(PluginDirectoryError) as caught:
        find_directory("gone", installation=installation)
    assert str(caught.value) == (
        f"plugin directory 'gone' does not exist (looked for {work}/gone, {installation}/gone);"
        " create it, or correct the path"
    )
    (work / "file").write_text("")
    with pytest.raises(PluginDirectoryError):
        find_directory("file", installation=installation)


def test_the_guides_directory_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``pixsim7_backend/plugins`` of the installation, with its real package names."""
    monkeypatch.chdir(tmp_path)
    directory = find_directory("pixsim7_backend/plugins")
    assert directory == INSTALLATION / "pixsim7_backend" / "plugins"
    found = discover_directory(directory)
    assert all(each.source.package == f"pixsim7_backend.plugins.{each.source.folder}" for each in found)


def test_directories_outside_a_package_get_parents_of_their_own(tmp_path: Path) -> None:
    """Two directories with the same folder do not clash; the same directory always has the same name."""
    write(tmp_path / "one" / "a")
    write(tmp_path / "two" / "a")
    packages = [
        each.source.package for each in discover([tmp_path / "one", tmp_path / "two"], entry_points=[]).candidates
    ]
    assert len(set(packages)) == 2
    assert all(package.startswith("pixsim7_plugins_") and package.endswith(".a") for package in packages)
    assert [each.source.package for each in discover_directory(tmp_path / "one")] == packages[:1]


def test_a_directory_given_twice_counts_once(tmp_path: Path) -> None:
    """Also under another spelling or through a link."""
    write(tmp_path / "plugins" / "a")
    (tmp_path / "link").symlink_to(tmp_path / "plugins")
    twice = [tmp_path / "plugins", tmp_path / "plugins" / ".", tmp_path / "link"]
    assert len(discover(twice, entry_points=[]).candidates) == 1


def test_a_directory_inside_an_importable_package_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package must be the one that an import would find, and is not imported to find out."""
    package = tmp_path / "acme_game"
    write(package / "features" / "a")
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    assert discover_directory(package / "features")[0].source.package.startswith("pixsim7_plugins_")
    monkeypatch.syspath_prepend(tmp_path)
    (candidate,) = discover_directory(package / "features")
    assert candidate.source.package == "acme_game.features.a"
    assert candidate.source.path == package / "features" / "a"
    (tmp_path / "my-link").symlink_to(package / "features")
    assert discover_directory(tmp_path / "my-link")[0].source.package.startswith("pixsim7_plugins_")
    assert "acme_game" not in sys.modules


def test_names_given_by_discovery_can_be_imported(tmp_path: Path) -> None:
    """With and without ``__init__.py``, relative imports included, under a synthetic parent."""
    folder = write(tmp_path / "a")
    (folder / "rules.py").write_text("ANSWER = 42\n")
    (folder / "manifest.py").write_text("from .rules import ANSWER\n")
    for is_package in (True, False):
        if not is_package:
            (folder / "__init__.py").unlink()
        script = (
            "import sys, types, importlib\n"
            f"parent = types.ModuleType('pixsim7_plugins_x'); parent.__path__ = [{str(tmp_path)!r}]\n"
            "sys.modules['pixsim7_plugins_x'] = parent\n"
            "assert importlib.import_module('pixsim7_plugins_x.a.manifest').ANSWER == 42\n"
        )
        subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look everywhere")
def test_a_directory_without_permission_is_a_typed_error(tmp_path: Path) -> None:
    """Not a crash in the middle of the start."""
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(PluginDirectoryError):
        discover_directory(tmp_path / "closed")


# --- installed packages -------------------------------------------------------------------------


def entry_point(name: str, value: str) -> importlib.metadata.EntryPoint:
    """One line of an installed package's metadata."""
    return importlib.metadata.EntryPoint(name=name, value=value, group="pixsim7.plugins")


def test_installed_packages_offer_plugins_without_being_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Top-level and nested packages are found by their names alone."""
    write(tmp_path / "acme_stealth", "acme-stealth")
    write(tmp_path / "acme_suite" / "plugins" / "quests", "acme-quests")
    for name in ("acme_stealth", "acme_suite", "acme_suite/plugins"):
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    quests, stealth = discover_entry_points(
        [
            entry_point("acme-stealth", "acme_stealth"),
            entry_point("acme-quests", "acme_suite.plugins.quests"),
            entry_point("acme-quests", "acme_suite.plugins.quests"),
        ]
    )
    assert (stealth.id, stealth.error, stealth.warnings) == ("acme-stealth", None, ())
    assert stealth.source.path == tmp_path / "acme_stealth"
    assert (quests.id, quests.source.package) == ("acme-quests", "acme_suite.plugins.quests")
    assert quests.source.rank is SourceRank.ENTRY_POINT
    assert not {"acme_stealth", "acme_suite"} & set(sys.modules)


@pytest.mark.parametrize("value", ["gone_package", "gone_package.sub", "json.decoder", "sys", "a b", "", "json:loads"])
def test_an_entry_point_that_leads_nowhere_is_a_failed_plugin(value: str) -> None:
    """Not installed, a module, no name at all, or an attribute."""
    (candidate,) = discover_entry_points([entry_point("acme", value)])
    assert isinstance(candidate.error, EntryPointError)
    assert str(candidate.error) == (
        f"entry point acme = {value!r} (group 'pixsim7.plugins'): no such package is installed;"
        " its value must be the dotted name of a package that holds manifest.py"
    )


def test_an_installed_package_without_manifest_is_a_failed_plugin() -> None:
    """It has the name of the entry point."""
    (candidate,) = discover_entry_points([entry_point("json-plugin", "json")])
    assert candidate.id == "json-plugin"
    assert isinstance(candidate.error, MissingManifestError)


def test_directories_come_before_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order given; the log line lists them all."""
    write(tmp_path / "plugins" / "z")
    write(tmp_path / "more" / "b")
    write(tmp_path / "acme_a", "acme-a")
    monkeypatch.syspath_prepend(tmp_path)
    found = discover([tmp_path / "plugins", tmp_path / "more"], entry_points=[entry_point("acme-a", "acme_a")])
    assert found.folders == ("z", "b", "acme-a")
