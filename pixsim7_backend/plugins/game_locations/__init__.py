"""The places of the game's world. Public face: what other plugins may use of it."""

from pixsim7_backend.plugins.game_scenes import check_assets

from .manifest import manifest, router
from .models import GameLocation
from .schemas import HotspotView, LocationDetail, LocationSummary
from .store import OCCUPANTS_PORT, Occupants, missing_locations, require_locations
from .store import get as get_location

__all__ = [
    "manifest",
    "router",
    "OCCUPANTS_PORT",
    "GameLocation",
    "HotspotView",
    "LocationDetail",
    "LocationSummary",
    "Occupants",
    "check_assets",
    "missing_locations",
    "get_location",
    "require_locations",
]
