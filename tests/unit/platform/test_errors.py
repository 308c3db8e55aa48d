"""What every error of the platform has in common."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from pixsim7_backend.infrastructure.plugins import errors
from pixsim7_backend.infrastructure.plugins.errors import PluginError
from pixsim7_backend.infrastructure.plugins.errors.settings import SettingProblem
from pixsim7_backend.infrastructure.plugins.states import PluginState

SAMPLES: dict[str, Any] = {
    "plugin": "game-stealth",
    "file": Path("/plugins/game_stealth/manifest.py"),
    "directory": Path("/plugins/game_stealth"),
    "problems": ["`version` is missing"],
    "searched": [Path("/a"), Path("/b")],
    "cycle": ["a", "b", "a"],
    "dependants": ["x", "y"],
    "required": ["x"],
    "line": 3,
    "limit": 10.0,
    "took": 12.5,
    "cause": ValueError("no"),
    "dependency_state": PluginState.FAILED,
    "current": PluginState.FAILED,
    "wanted": PluginState.ENABLED,
    "window": 30.0,
    "pause": 60.0,
    "trips": 2,
    "allowed": 30_000,
    "retry_after": 17,
}
KINDS = sorted(
    (kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, PluginError)),
    key=lambda kind: kind.__name__,
)


def sample(kind: type[PluginError]) -> PluginError:
    """Make one of each kind from its signature."""
    if kind is PluginError:
        return PluginError("something is wrong", plugin="game-stealth")
    values = {name: SAMPLES.get(name, f"some-{name}") for name in inspect.signature(kind).parameters}
    if kind is errors.PluginStartupError:
        values["problems"] = [sample(errors.MissingManifestError)]
    if kind is errors.PluginSettingsError:
        values["problems"] = [SettingProblem(field="speed", source="environment", problem="is missing", example="3")]
    if kind is errors.RolledBackError:
        values["cause"] = sample(errors.MissingManifestError)
    if kind == errors.HostVersionError:
        values["required"] = ">=2"
    return kind(**values)


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_survives_copying_pickling_and_json(kind: type[PluginError]) -> None:
    """Errors cross process borders and are shown by the command line and the admin API."""
    error = sample(kind)
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301  # our own bytes
        assert type(twin) is kind
        assert str(twin) == str(error)
        assert twin.fields.keys() == error.fields.keys()
    content = json.loads(json.dumps(error.to_json()))
    assert content["type"] == kind.__name__
    assert content["message"] == str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_says_whose_it_is_and_what_the_plugin_becomes(kind: type[PluginError]) -> None:
    """``plugin`` is always there (empty where no plugin is concerned); the state is one that holds it back."""
    error = sample(kind)
    assert error.plugin in ("game-stealth", "")
    assert error.state in (PluginState.FAILED, PluginState.BLOCKED, PluginState.DISABLED)
    assert str(error)


def test_a_wrapped_exception_stays_the_cause() -> None:
    """The traceback of what the plugin raised is not lost."""
    cause = ValueError("no")
    assert errors.PluginHookError(plugin="a", hook="on_load", cause=cause).__cause__ is cause


def test_a_manifest_error_names_file_and_line() -> None:
    """An editor can jump to it."""
    error = errors.InvalidManifestError(plugin="a", file=Path("a/manifest.py"), line=7, problems=["one", "two"])
    assert str(error) == "a/manifest.py:7: one; two"
    assert str(errors.InvalidManifestError(plugin="a", file=Path("a/manifest.py"), problems=["one"])) == (
        "a/manifest.py: one"
    )


def test_an_aborted_start_lists_every_problem() -> None:
    """One line per problem, so that all can be mended in one go."""
    problem = errors.MissingDependencyError(plugin="a", missing="b")
    assert str(errors.PluginStartupError(problems=[problem, problem])) == (
        "start-up aborted, on_plugin_error is 'strict':"
        "\n  - a: plugin 'a' requires 'b', which is not installed"
        "\n  - a: plugin 'a' requires 'b', which is not installed"
    )
    assert str(errors.PluginStartupError(problems=[], required=["a"])) == (
        "start-up aborted, required plugins cannot run (a):"
    )
