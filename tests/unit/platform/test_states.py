"""The states and the table of what may follow what."""

from __future__ import annotations

import pytest

from pixsim7_backend.infrastructure.plugins.errors import IllegalTransitionError, PluginDisabledError
from pixsim7_backend.infrastructure.plugins.records import PluginRecord
from pixsim7_backend.infrastructure.plugins.states import TRANSITIONS, PluginState, can_become

from .candidates import COMMUNITY, candidate, source

S = PluginState


def record(state: PluginState = S.DISCOVERED, generation: int = 0) -> PluginRecord:
    """A record in this state."""
    manifest = candidate("game-stealth", name="Stealth", version="1.2").manifest
    return PluginRecord(
        id="game-stealth", source=source("game-stealth"), manifest=manifest, state=state, generation=generation
    )


def test_the_table_knows_every_state() -> None:
    """Each state has an entry, and each entry leads to states only."""
    assert set(TRANSITIONS) == set(S)
    assert all(following <= set(S) for following in TRANSITIONS.values())


@pytest.mark.parametrize(
    "path",
    [
        (S.DISCOVERED, S.LOADED, S.ENABLED, S.DISABLED, S.ENABLED),
        (S.DISCOVERED, S.DISABLED, S.DISCOVERED, S.LOADED),
        (S.DISCOVERED, S.BLOCKED, S.DISCOVERED),
        (S.LOADED, S.FAILED, S.DISCOVERED),
        (S.ENABLED, S.REMOVED, S.DISCOVERED),
    ],
)
def test_lives_a_plugin_may_lead(path: tuple[PluginState, ...]) -> None:
    """The guide's life cycle, and the ways back."""
    now = record(path[0])
    for state in path[1:]:
        now = now.to(state)
        assert now.state is state


@pytest.mark.parametrize(
    ("current", "wanted"),
    [
        (S.DISCOVERED, S.ENABLED),
        (S.FAILED, S.ENABLED),
        (S.BLOCKED, S.LOADED),
        (S.ENABLED, S.LOADED),
        (S.REMOVED, S.ENABLED),
        (S.ENABLED, S.ENABLED),
    ],
)
def test_steps_that_nobody_may_take(current: PluginState, wanted: PluginState) -> None:
    """An illegal step is an error that names both states, and the record stays what it was."""
    assert not can_become(current, wanted)
    before = record(current)
    with pytest.raises(IllegalTransitionError, match=f"is {current} and cannot become {wanted}"):
        before.to(wanted)
    assert before.state is current


def test_a_step_takes_a_reason_and_other_changes_along() -> None:
    """The old record is untouched; without a reason the new one has none."""
    reason = PluginDisabledError(plugin="game-stealth", by="manifest")
    off = record().to(S.DISABLED, reason)
    assert off.reason is reason
    assert off.to(S.LOADED, generation=2).reason is None
    assert off.to(S.LOADED, generation=2).generation == 2


def test_a_record_as_json() -> None:
    """Everything an operator wants to see."""
    content = record().to(S.DISABLED, PluginDisabledError(plugin="game-stealth", by="manifest")).to_json()
    assert content["id"] == "game-stealth"
    assert (content["name"], content["version"], content["state"]) == ("Stealth", "1.2", "disabled")
    assert content["reason"]["type"] == "PluginDisabledError"
    assert content["source"] == {
        "folder": "game_stealth",
        "path": "/plugins/game_stealth",
        "rank": "first_party",
        "is_confined": False,
    }
    assert content["manifest"]["tags"] == []


def test_a_record_without_manifest_goes_by_its_id() -> None:
    """A folder that could not be read still has a name."""
    bare = PluginRecord(id="a", source=source("a", COMMUNITY))
    assert (bare.name, bare.version, bare.to_json()["manifest"]) == ("a", "", None)
    assert not bare.source.is_trusted
