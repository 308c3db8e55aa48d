"""The manifest and the grammar of the names inside it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pixsim7_backend.infrastructure.plugins.types import PluginManifest, Requirement, normalize_plugin_id


def problems(**fields: Any) -> list[str]:
    """Return what the manifest with these fields is refused for."""
    with pytest.raises(ValidationError) as caught:
        PluginManifest(**{"id": "game-stealth", **fields})
    return [str(problem.get("ctx", {}).get("error", problem["msg"])) for problem in caught.value.errors()]


def test_the_defaults_are_those_of_the_design() -> None:
    """A manifest that says only its id wants nothing and is enabled."""
    manifest = PluginManifest(id="game-stealth")
    assert manifest.model_dump() == {
        "id": "game-stealth",
        "name": "Game Stealth",
        "version": "0.0.0",
        "description": "",
        "author": "",
        "prefix": "/api/v1",
        "tags": (),
        "dependencies": (),
        "after": (),
        "conflicts": (),
        "requires_db": False,
        "requires_redis": False,
        "requires_host": "",
        "enabled": True,
        "required": False,
        "permissions": (),
        "events": (),
        "rate_limit": "",
        "replace": "beside",
    }


def test_a_manifest_is_frozen() -> None:
    """Nobody changes what a plugin claims."""
    manifest = PluginManifest(id="a")
    with pytest.raises(ValidationError):
        manifest.enabled = False  # type: ignore[misc]


def test_what_the_author_set_can_be_told_from_the_defaults() -> None:
    """The name that is made from the id does not count as set."""
    assert PluginManifest(id="game-stealth").model_fields_set == {"id"}
    assert PluginManifest(id="game-stealth", name="").name == "Game Stealth"
    assert PluginManifest(id="game-stealth", name="Stealth").model_fields_set == {"id", "name"}


def test_the_snippets_of_the_guide_are_manifests() -> None:
    """The guide writes some manifests down in passing."""
    combat = PluginManifest(id="game-combat", dependencies=["game-sessions", "game-npcs"])
    assert [str(requirement) for requirement in combat.requirements] == ["game-sessions", "game-npcs"]
    assert PluginManifest(id="experimental-feature", enabled=False).enabled is False
    assert PluginManifest(id="community-plugin", permissions=["db:read"]).permissions == ("db:read",)


def test_all_unknown_fields_are_named_with_the_nearest_known_one() -> None:
    """A misspelt field is never ignored."""
    assert problems(versionn="1", colour="red") == [
        (
            "unknown field 'versionn'; did you mean 'version'?; unknown field 'colour'; known fields: id, name,"
            " version, description, author, prefix, tags, dependencies, after, conflicts, requires_db, requires_redis,"
            " requires_host, enabled, required, permissions, events, rate_limit, replace"
        )
    ]


@pytest.mark.parametrize("plugin_id", ["a", "game-stealth", "a1-2b"])
def test_good_ids(plugin_id: str) -> None:
    """Lower-case letters, digits and single hyphens, starting with a letter."""
    assert PluginManifest(id=plugin_id).id == plugin_id


@pytest.mark.parametrize("plugin_id", ["", "Game", "game_stealth", "-a", "a-", "a--b", "1a", "a b", "a.b", "ä", "a\n"])
def test_bad_ids_are_refused_with_an_example(plugin_id: str) -> None:
    """The message shows a correct one."""
    if plugin_id == "a\n":
        assert PluginManifest(id=plugin_id).id == "a", "outer blanks are taken off"
    else:
        assert problems(id=plugin_id)[0].endswith("starting with a letter, like 'game-stealth'")


@pytest.mark.parametrize(
    ("field", "value", "example"),
    [
        ("version", "one", "write it like '1.0.0'"),
        ("prefix", "api", "like '/api/v1' (or '' for none)"),
        ("prefix", "/api/", "like '/api/v1' (or '' for none)"),
        ("prefix", "/{tenant}", "like '/api/v1' (or '' for none)"),
        ("prefix", "/a/../b", "like '/api/v1' (or '' for none)"),
        ("prefix", "/.", "like '/api/v1' (or '' for none)"),
        ("requires_host", "new", "write it like '>=1.0,<2'"),
        ("rate_limit", "100/min", "write it like '100/minute' (second, minute, hour or day)"),
        ("rate_limit", "0/minute", "write it like '100/minute' (second, minute, hour or day)"),
    ],
)
def test_malformed_texts_are_refused_with_an_example(field: str, value: str, example: str) -> None:
    """Each message ends with a correct example."""
    (problem,) = problems(**{field: value})
    assert problem.endswith(example)
    assert repr(value) in problem


@pytest.mark.parametrize(
    ("field", "value", "example"),
    [
        ("dependencies", "game sessions", "write it like 'game-sessions' or 'game-sessions>=1.2,<2'"),
        ("dependencies", "a>=x", "write it like 'game-sessions' or 'game-sessions>=1.2,<2'"),
        ("dependencies", "a[extra]", "write it like 'game-sessions' or 'game-sessions>=1.2,<2'"),
        ("dependencies", "a; python_version>'3'", "write it like 'game-sessions' or 'game-sessions>=1.2,<2'"),
        ("conflicts", "", "write it like 'game-sessions' or 'game-sessions>=1.2,<2'"),
        ("after", "a>=1", "starting with a letter, like 'game-stealth'"),
        ("events", "finished", "write it like 'quest:finished'"),
        ("permissions", "db:raed", "did you mean 'db:read'?"),
        (
            "permissions",
            "magic",
            (
                "known: db:read, db:write, db:own, redis:read, redis:write, events:subscribe,"
                " events:emit, user:read, net:<host>"
            ),
        ),
        ("permissions", "db:read:Bad Table", "write it like 'db:read:game_npcs,game_locations'"),
        ("permissions", "user:read:me", "write it like 'user:read'"),
        ("permissions", "net:", "write it like 'net:api.example.org'"),
        ("permissions", "net:a b", "write it like 'net:api.example.org'"),
    ],
)
def test_malformed_items_are_refused_with_an_example(field: str, value: str, example: str) -> None:
    """The same for the fields that are lists."""
    (problem,) = problems(**{field: [value]})
    assert problem.endswith(example)


def test_good_permissions() -> None:
    """Each one plain, or narrowed in its own way."""
    permissions = (
        "db:read",
        "db:write:game_npcs,game_locations",
        "db:own",
        "redis:read:cache:*".removesuffix(":*"),
        "events:subscribe:session:*",
        "user:read",
        "net:api.example.org:8443",
    )
    assert PluginManifest(id="a", permissions=permissions).permissions == permissions


@pytest.mark.parametrize(
    ("text", "plugin", "versions"),
    [
        ("game-sessions", "game-sessions", ""),
        ("Game_Sessions >= 1.2, < 2", "game-sessions", "<2,>=1.2"),
        ("a==1.*", "a", "==1.*"),
        ("a~=1.4", "a", "~=1.4"),
    ],
)
def test_requirements(text: str, plugin: str, versions: str) -> None:
    """An id in any spelling and a PEP 440 range."""
    requirement = Requirement.parse(text)
    assert (requirement.plugin, str(requirement.versions)) == (plugin, versions)
    assert Requirement.parse(str(requirement)) == requirement


def test_exclusions_are_the_parsed_conflicts() -> None:
    """``conflicts`` have the form of ``dependencies``."""
    assert [str(each) for each in PluginManifest(id="a", conflicts=["b<2"]).exclusions] == ["b<2"]


@given(st.text())
def test_normalising_twice_is_normalising_once(name: str) -> None:
    """The one normaliser is stable, and hyphens and underscores are the same to it."""
    once = normalize_plugin_id(name)
    assert normalize_plugin_id(once) == once
    assert normalize_plugin_id(name.replace("-", "_")) == once


@given(st.text())
def test_requirements_never_crash(text: str) -> None:
    """Any text is a requirement or a ValueError."""
    try:
        refusal = ""
        Requirement.parse(text)
    except ValueError as error:
        refusal = str(error)
    assert not refusal or "like" in refusal


@given(
    st.dictionaries(
        st.sampled_from([*PluginManifest.model_fields, "unknown"]),
        st.one_of(st.text(), st.integers(), st.lists(st.text()), st.none()),
    )
)
def test_manifests_never_crash(fields: dict[str, Any]) -> None:
    """Any values are a manifest or a ValidationError."""
    try:
        manifest = PluginManifest(**fields)
    except ValidationError:
        return
    assert manifest.name
