"""What a pickpocket attempt does to a play-through."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsim7_backend.plugins.game_stealth.rules import (
    Attempt,
    Draws,
    Outcome,
    pickpocket,
    stealth_record,
    suspicion_of,
)
from pixsim7_backend.plugins.game_stealth.settings import StealthSettings

AT = "2030-01-01T00:00:00+00:00"
SUCCEEDS_UNSEEN = Draws(success=0.0, detection=0.999)
FAILS_UNSEEN = Draws(success=0.999, detection=0.999)
FAILS_SEEN = Draws(success=0.999, detection=0.0)
SUCCEEDS_SEEN = Draws(success=0.0, detection=0.0)

draws = st.builds(Draws, success=st.floats(0, 1, exclude_max=True), detection=st.floats(0, 1, exclude_max=True))
chances = st.floats(0, 1)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "stealth", "flags", "npc:3", "suspicion"]), children, max_size=3)
    ),
    max_leaves=8,
)


def attempt(success: float = 0.5, detection: float = 0.5, npc_id: int = 3) -> Attempt:
    """An attempt on NPC 3 with even chances."""
    return Attempt(npc_id=npc_id, slot_id="purse", base_success_chance=success, detection_chance=detection)


def play(
    drawn: Draws,
    flags: dict[str, Any] | None = None,
    relationships: dict[str, Any] | None = None,
    *,
    tried: Attempt | None = None,
    tuned: StealthSettings | None = None,
) -> Outcome:
    """One attempt with these draws on a session that holds this."""
    settings = tuned or StealthSettings()
    return pickpocket(flags or {}, relationships or {}, tried or attempt(), drawn, at=AT, settings=settings)


@pytest.mark.parametrize(
    ("drawn", "message"),
    [
        (SUCCEEDS_UNSEEN, "You successfully pickpocketed NPC #3!"),
        (FAILS_UNSEEN, "Pickpocket attempt on NPC #3 failed."),
        (SUCCEEDS_SEEN, "You successfully pickpocketed NPC #3! You were detected!"),
        (FAILS_SEEN, "Pickpocket attempt on NPC #3 failed. You were detected!"),
    ],
)
def test_the_message_tells_both_results(drawn: Draws, message: str) -> None:
    """Success and detection are independent: all four endings exist, each with its literal text."""
    assert play(drawn).message == message


@given(draws)
def test_a_chance_of_0_never_and_of_1_always_happens(drawn: Draws) -> None:
    """Draws are below 1, so that the ends of the range are certain."""
    never = play(drawn, tried=attempt(0.0, 0.0))
    always = play(drawn, tried=attempt(1.0, 1.0))
    assert (never.success, never.detected) == (False, False)
    assert (always.success, always.detected) == (True, True)


@given(draws, chances, chances)
def test_a_draw_below_its_chance_is_a_hit(drawn: Draws, success: float, detection: float) -> None:
    """Each of the two chances looks at its own draw only."""
    outcome = play(drawn, tried=attempt(success, detection))
    assert outcome.success is (drawn.success < success)
    assert outcome.detected is (drawn.detection < detection)


def test_every_attempt_is_recorded_and_others_stay() -> None:
    """The list grows by exactly what happened; other flags are kept."""
    first = play(SUCCEEDS_UNSEEN, {"arcs": {"intro": 1}, "stealth": {"alarm": False}})
    second = play(FAILS_SEEN, first.flags, first.relationships)
    assert second.flags["arcs"] == {"intro": 1}
    assert second.flags["stealth"]["alarm"] is False
    assert second.flags["stealth"]["pickpocket_attempts"] == [
        {"npc_id": 3, "slot_id": "purse", "success": True, "detected": False, "at": AT},
        {"npc_id": 3, "slot_id": "purse", "success": False, "detected": True, "at": AT},
    ]


def test_success_and_detection_each_leave_their_mark() -> None:
    """Stolen and caught are flags of their own, and they stay after a later attempt ends otherwise."""
    stolen = play(SUCCEEDS_UNSEEN).flags["stealth"]
    assert stolen["stole_from_npc_3"] is True
    assert "caught_by_npc_3" not in stolen
    caught = play(FAILS_SEEN)
    assert caught.flags["stealth"]["caught_by_npc_3"] is True
    assert "stole_from_npc_3" not in caught.flags["stealth"]
    assert play(FAILS_UNSEEN, caught.flags).flags["stealth"]["caught_by_npc_3"] is True


def test_being_seen_is_remembered_by_the_npc() -> None:
    """The relationship gains the flag even where there was none; unseen it stays as it is."""
    assert play(FAILS_SEEN).relationships == {"npc:3": {"flags": {"caught_pickpocketing": True}}}
    assert play(SUCCEEDS_UNSEEN).relationships == {}
    known = {"npc:3": {"trust": 4, "flags": {"met": True}}, "npc:4": {"score": 50}}
    assert play(FAILS_SEEN, relationships=known).relationships == {
        "npc:3": {"trust": 4, "flags": {"met": True, "caught_pickpocketing": True}},
        "npc:4": {"score": 50},
    }


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (50, 40),
        (10, 0),
        (5, 0),
        (0, 0),
        (12.5, 2.5),
        (-5, -5),
        (None, None),
        ("high", "high"),
        (True, True),
        (10**400, 10**400 - 10),
    ],
)
@pytest.mark.parametrize("standing", ["score", "affinity"])
def test_standing_falls_by_ten_but_not_below_zero(standing: str, before: object, after: object) -> None:
    """Score and affinity are lowered where they exist as numbers, never below 0 and never lifted."""
    outcome = play(FAILS_SEEN, relationships={"npc:3": {standing: before}})
    assert outcome.relationships["npc:3"][standing] == after
    assert type(outcome.relationships["npc:3"][standing]) is type(after)


def test_standing_that_does_not_exist_is_not_invented() -> None:
    """An NPC without score and affinity gains neither."""
    assert play(FAILS_SEEN, relationships={"npc:3": {"trust": 1}}).relationships["npc:3"].keys() == {"trust", "flags"}


def test_suspicion_rises_when_seen_and_fades_when_not() -> None:
    """Up by 0.25, down by 0.05, within [0, 1], for each NPC apart."""
    flags: dict[str, Any] = {}
    seen: list[float] = []
    for drawn in [FAILS_UNSEEN, FAILS_SEEN, FAILS_UNSEEN, *[FAILS_SEEN] * 5, SUCCEEDS_UNSEEN]:
        flags = play(drawn, flags).flags
        seen.append(suspicion_of(flags, 3))
    assert seen == [0.0, 0.25, 0.2, 0.45, 0.7, 0.95, 1.0, 1.0, 0.95]
    assert flags["stealth"]["suspicion"] == {"npc:3": 0.95}
    assert suspicion_of(flags, 4) == 0.0
    assert play(FAILS_SEEN, flags, tried=attempt(npc_id=4)).flags["stealth"]["suspicion"] == {
        "npc:3": 0.95,
        "npc:4": 0.25,
    }


@pytest.mark.parametrize(("suspicion", "edge"), [(0.0, 0.2), (0.5, 0.35), (1.0, 0.5)])
def test_suspicion_adds_to_the_chance_to_be_seen(suspicion: float, edge: float) -> None:
    """The chance is detection_chance + 0.3 * suspicion before the attempt."""
    flags = {"stealth": {"suspicion": {"npc:3": suspicion}}}
    tried = attempt(detection=0.2)
    assert play(Draws(0.5, edge - 0.001), flags, tried=tried).detected is True
    assert play(Draws(0.5, edge + 0.001), flags, tried=tried).detected is False


@pytest.mark.parametrize("malformed", [None, 5, "x", [], [1], True, {"npc:3": "much"}, {"npc:3": float("nan")}])
def test_malformed_suspicion_counts_as_none(malformed: object) -> None:
    """A player may have written anything there; it neither fails nor counts."""
    assert suspicion_of({"stealth": {"suspicion": malformed}}, 3) == 0.0
    assert suspicion_of({"stealth": {"suspicion": {"npc:3": 10**400}}}, 3) == 1.0
    assert suspicion_of({"stealth": {"suspicion": {"npc:3": -4}}}, 3) == 0.0


@given(st.dictionaries(st.sampled_from(["stealth", "x"]), json_values), json_values, draws)
@settings(max_examples=150)
def test_any_stored_json_is_survived_and_left_as_it_was(flags: dict[str, Any], mine: Any, drawn: Draws) -> None:
    """Whatever a session holds, an attempt is recorded, the result is JSON, and the input is not touched."""
    relationships = {"npc:3": mine}
    before = copy.deepcopy((flags, relationships))
    outcome = play(drawn, flags, relationships)
    assert (flags, relationships) == before
    assert stealth_record(outcome.flags)["pickpocket_attempts"][-1]["at"] == AT
    assert 0 <= suspicion_of(outcome.flags, 3) <= 1
    json.dumps([outcome.flags, outcome.relationships])


@given(st.lists(st.tuples(draws, chances, chances), max_size=12))
@settings(max_examples=50)
def test_a_series_keeps_every_attempt_and_the_sums_agree(series: list[tuple[Draws, float, float]]) -> None:
    """As many entries as attempts; the marks are there exactly when an entry says so."""
    flags: dict[str, Any] = {}
    for drawn, success, detection in series:
        flags = play(drawn, flags, tried=attempt(success, detection)).flags
    record = stealth_record(flags)
    attempts = record.get("pickpocket_attempts", [])
    assert len(attempts) == len(series)
    assert ("stole_from_npc_3" in record) is any(entry["success"] for entry in attempts)
    assert ("caught_by_npc_3" in record) is any(entry["detected"] for entry in attempts)


def test_settings_say_what_being_seen_costs() -> None:
    """Each setting has its effect; unseen attempts fade by what is set."""
    tuned = StealthSettings(suspicion_when_seen=0.4, suspicion_forgotten=0.1, suspicion_weight=1, standing_lost=3)
    seen = play(FAILS_SEEN, relationships={"npc:3": {"score": 50}}, tuned=tuned)
    assert suspicion_of(seen.flags, 3) == 0.4
    assert seen.relationships["npc:3"]["score"] == 47
    weighed = play(Draws(success=0.9, detection=0.35), seen.flags, tried=attempt(detection=0.0), tuned=tuned)
    assert weighed.detected
    unseen = play(FAILS_UNSEEN, seen.flags, tried=attempt(detection=0.0), tuned=tuned)
    assert suspicion_of(unseen.flags, 3) == 0.3
