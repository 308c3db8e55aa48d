"""Dispatch: requests to plugins at a flat cost, changed while the app serves."""

from __future__ import annotations

from .claims import RouteClaim
from .conflicts import find_conflicts
from .mount import PluginMount, build_mount
from .route import PluginRoute
from .stand_in import build_stand_in

__all__ = ["PluginMount", "PluginRoute", "RouteClaim", "build_mount", "build_stand_in", "find_conflicts"]
