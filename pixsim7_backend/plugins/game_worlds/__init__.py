"""The public face of game-worlds: whose world it is, and what time it is there."""

from .manifest import manifest, on_enable, router
from .models import GameWorld
from .store import WorldsPort, get_locked, get_owned

__all__ = ["manifest", "router", "on_enable", "GameWorld", "WorldsPort", "get_locked", "get_owned"]
