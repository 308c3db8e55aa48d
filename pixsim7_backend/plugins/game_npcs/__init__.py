"""Who lives in the game's world and where they are. Public face: what other plugins may use of it."""

from .manifest import manifest, on_enable, router
from .models import GameNpc
from .presence import presence_at
from .schemas import ExpressionView, NpcPresence, NpcView
from .store import expressions as get_expressions
from .store import find_state
from .store import get as get_npc

__all__ = [
    "manifest",
    "router",
    "on_enable",
    "ExpressionView",
    "GameNpc",
    "NpcPresence",
    "NpcView",
    "find_state",
    "get_expressions",
    "get_npc",
    "presence_at",
]
