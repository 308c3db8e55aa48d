"""Loads the dice, so that the demo tells the same story every time."""

from .manifest import manifest, on_enable, router

__all__ = ["manifest", "router", "on_enable"]
