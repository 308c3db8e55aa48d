"""Demo dice: decides the game's chance at the port ``random``, the same way at every start."""

from __future__ import annotations

import random

from fastapi import APIRouter

from pixsim7_backend.infrastructure.plugins import ports
from pixsim7_backend.infrastructure.plugins.types import PluginManifest

manifest = PluginManifest(
    id="demo-dice",
    name="Demo Dice",
    version="1.0.0",
    description="Decides the game's chance, the same way at every start.",
    author="PixSim7",
)

router = APIRouter()

SEED = 26


def on_enable() -> None:
    """Take over the game's chance."""
    ports.provide("random", random.Random(SEED))  # noqa: S311  # a story, not a secret
