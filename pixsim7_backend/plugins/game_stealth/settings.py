"""How hard stealth is; an operator tunes it while people play."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["StealthSettings"]

Share = Annotated[float, Field(ge=0, le=1)]


class StealthSettings(BaseModel):
    """What an attempt does to the NPC it is made on; suspicion is a number in [0, 1]."""

    model_config = ConfigDict(frozen=True)

    suspicion_when_seen: Share = 0.25
    """How much suspicion grows when the NPC sees the attempt."""
    suspicion_forgotten: Share = 0.05
    """How much suspicion fades with an attempt that the NPC does not see."""
    suspicion_weight: Share = 0.3
    """How much full suspicion adds to the chance to be seen."""
    standing_lost: Annotated[int, Field(ge=0, le=1000)] = 10
    """What being seen costs in the NPC's relationship."""
