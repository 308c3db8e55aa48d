"""What clients send and get: pickpocket attempts and the stealth record of a session."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from pixsim7_backend.problems import Conflict
from pixsim7_backend.storable import RowId, Text

from . import rules

__all__ = ["PickpocketAttempt", "PickpocketResult", "StealthRecord"]

Chance = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class PickpocketAttempt(BaseModel):
    """A try to take what an NPC carries in a slot."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

    session_id: RowId
    npc_id: RowId
    slot_id: Annotated[Text, Field(min_length=1, max_length=100)]
    base_success_chance: Chance
    detection_chance: Chance
    """Before the NPC's suspicion is added."""
    world_id: RowId | None = None
    """The world the client thinks the session is played in; 409 when it is played in another."""

    def in_rules(self) -> rules.Attempt:
        """The attempt as the rules take it."""
        return rules.Attempt(
            npc_id=self.npc_id,
            slot_id=self.slot_id,
            base_success_chance=self.base_success_chance,
            detection_chance=self.detection_chance,
        )

    def require_world(self, played_in: int | None) -> None:
        """Raise Conflict when the session is played in another world than the client thinks."""
        if None not in (self.world_id, played_in) and self.world_id != played_in:
            raise Conflict(f"the session is played in game world {played_in}, not {self.world_id}")


class PickpocketResult(BaseModel):
    """How the attempt ended; ``updated_flags`` are all flags of the session after it."""

    success: bool
    detected: bool
    updated_flags: dict[str, Any]
    message: str

    @classmethod
    def of(cls, outcome: rules.Outcome) -> PickpocketResult:
        """What the client is told of an outcome."""
        return cls(
            success=outcome.success, detected=outcome.detected, updated_flags=outcome.flags, message=outcome.message
        )


class StealthRecord(BaseModel):
    """What a session holds about stealth; parts that are missing or malformed are empty."""

    session_id: int
    pickpocket_attempts: list[Any]
    suspicion: dict[str, Any]
    """By ``npc:<id>``, numbers in [0, 1]."""
    stealth: dict[str, Any]
    """All of ``flags.stealth`` as stored."""

    @classmethod
    def of(cls, session_id: int, flags: dict[str, Any]) -> StealthRecord:
        """Read the record of a session from its flags."""
        return cls(
            session_id=session_id,
            pickpocket_attempts=rules.attempts_in(flags),
            suspicion=rules.suspicions_in(flags),
            stealth=rules.stealth_record(flags),
        )
