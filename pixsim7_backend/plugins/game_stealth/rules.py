"""What a pickpocket attempt does to a play-through: pure, no HTTP, no database, no clock, no chance.

Chance comes in as two numbers drawn beforehand (:class:`Draws`), time as a text. What a session
holds may have been written by its player, so every value read from it is checked and a malformed
one counts as absent.

Keys written, all under the session's ``flags`` and ``relationships``:

=====================================================  ==============================================
``flags.stealth.pickpocket_attempts``                  list of {npc_id, slot_id, success, detected, at}
``flags.stealth["stole_from_npc_<id>"]``               true after the first success
``flags.stealth["caught_by_npc_<id>"]``                true after the first time seen
``flags.stealth.suspicion["npc:<id>"]``                number in [0, 1]
``relationships["npc:<id>"].flags.caught_pickpocketing``  true after the first time seen
``relationships["npc:<id>"].score``, ``.affinity``     less each time seen, where they exist
=====================================================  ==============================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from .settings import StealthSettings

__all__ = [
    "Attempt",
    "Draws",
    "Outcome",
    "attempts_in",
    "pickpocket",
    "stealth_record",
    "suspicion_of",
    "suspicions_in",
]

_USUAL = StealthSettings()

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to take what an NPC carries in a slot; chances are in [0, 1]."""

    npc_id: int
    slot_id: str
    base_success_chance: float
    detection_chance: float


@dataclass(frozen=True, slots=True)
class Draws:
    """Two independent uniform draws from [0, 1)."""

    success: float
    detection: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended, with the session's new ``flags`` and ``relationships``."""

    success: bool
    detected: bool
    message: str
    entry: JsonObject
    """The attempt as it is recorded in the session's flags."""
    flags: JsonObject
    relationships: JsonObject


def pickpocket(
    flags: JsonObject,
    relationships: JsonObject,
    attempt: Attempt,
    draws: Draws,
    *,
    at: str,
    settings: StealthSettings = _USUAL,
) -> Outcome:
    """Play one attempt: success and detection are drawn apart, so both, either or none may happen.

    A draw below the chance is a hit, so that 0 never and 1 always happens. The NPC's suspicion
    before the attempt, weighted, adds to the chance to be seen. Inputs are left as they are.
    """
    suspicion = suspicion_of(flags, attempt.npc_id)
    success = draws.success < attempt.base_success_chance
    detected = draws.detection < attempt.detection_chance + settings.suspicion_weight * suspicion
    entry = {
        "npc_id": attempt.npc_id,
        "slot_id": attempt.slot_id,
        "success": success,
        "detected": detected,
        "at": at,
    }
    return Outcome(
        success=success,
        detected=detected,
        message=_message(attempt.npc_id, success=success, detected=detected),
        entry=entry,
        flags=_with_entry(flags, entry, _next_suspicion(suspicion, settings, detected=detected)),
        relationships=(
            _after_being_seen(relationships, attempt.npc_id, settings.standing_lost)
            if detected
            else dict(relationships)
        ),
    )


def stealth_record(flags: JsonObject) -> JsonObject:
    """The stealth part of a session's flags; empty when there is none yet."""
    return _object(flags.get("stealth"))


def attempts_in(flags: JsonObject) -> list[Any]:
    """The attempts that a session's flags record, oldest first."""
    attempts = stealth_record(flags).get("pickpocket_attempts")
    return attempts if isinstance(attempts, list) else []


def suspicions_in(flags: JsonObject) -> JsonObject:
    """How suspicious each NPC is, by ``npc:<id>``, as stored."""
    return _object(stealth_record(flags).get("suspicion"))


def suspicion_of(flags: JsonObject, npc_id: int) -> float:
    """How suspicious the NPC is of this play-through, in [0, 1]; 0 when it never met the thief."""
    stored = suspicions_in(flags).get(_npc_key(npc_id))
    return min(1.0, max(0.0, stored)) if _is_number(stored) else 0.0


def _with_entry(flags: JsonObject, entry: JsonObject, suspicion: float) -> JsonObject:
    npc_id = entry["npc_id"]
    record = stealth_record(flags)
    record["pickpocket_attempts"] = [*attempts_in(flags), entry]
    if entry["success"]:
        record[f"stole_from_npc_{npc_id}"] = True
    if entry["detected"]:
        record[f"caught_by_npc_{npc_id}"] = True
    record["suspicion"] = {**suspicions_in(flags), _npc_key(npc_id): suspicion}
    return {**flags, "stealth": record}


def _next_suspicion(suspicion: float, settings: StealthSettings, *, detected: bool) -> float:
    step = settings.suspicion_when_seen if detected else -settings.suspicion_forgotten
    # Rounded: twenty small steps must not leave 0.15000000000000002 in what a client reads.
    return round(min(1.0, max(0.0, suspicion + step)), 4)


def _after_being_seen(relationships: JsonObject, npc_id: int, lost: float) -> JsonObject:
    relationship = _object(relationships.get(_npc_key(npc_id)))
    relationship["flags"] = {**_object(relationship.get("flags")), "caught_pickpocketing": True}
    for standing in ("score", "affinity"):
        if _is_number(relationship.get(standing)):
            relationship[standing] = _lowered(relationship[standing], lost)
    return {**relationships, _npc_key(npc_id): relationship}


def _lowered(standing: float, lost: float) -> float:
    # The floor of 0 must not lift somebody who already stands below it.
    return min(standing, max(0, standing - lost))


def _message(npc_id: int, *, success: bool, detected: bool) -> str:
    told = (
        f"You successfully pickpocketed NPC #{npc_id}!" if success else f"Pickpocket attempt on NPC #{npc_id} failed."
    )
    return f"{told} You were detected!" if detected else told


def _npc_key(npc_id: int) -> str:
    return f"npc:{npc_id}"


def _object(value: object) -> JsonObject:
    return dict(value) if isinstance(value, Mapping) else {}


def _is_number(value: object) -> TypeGuard[float]:
    # bool is an int to Python, and JSON may hold NaN, or an int too large to be a float.
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)
