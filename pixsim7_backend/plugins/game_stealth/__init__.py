"""Stealth and pickpocketing, the guide's example of a full plugin."""

from .chance import RANDOM_PORT, RandomSource, get_roll
from .manifest import manifest, on_disable, on_enable, on_load, router

__all__ = [
    "manifest",
    "router",
    "on_load",
    "on_enable",
    "on_disable",
    # whoever wants to decide the game's chance
    "RANDOM_PORT",
    "RandomSource",
    "get_roll",
]
