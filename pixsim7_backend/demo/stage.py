"""Fills a server with the demo's world; what is there already, by name, stays as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import story
from .client import GameClient

__all__ = ["Stage", "set_stage"]


@dataclass(frozen=True, slots=True)
class Stage:
    """What the play needs: ids by name, and what had to be made for it."""

    location_ids: dict[str, int]
    npc_ids: dict[str, int]
    scene_id: int
    made: tuple[str, ...]

    def location_name(self, location_id: int) -> str:
        """The name of a location of the stage; its id where it is none."""
        names = {number: name for name, number in self.location_ids.items()}
        return names.get(location_id, f"location {location_id}")


def set_stage(client: GameClient) -> Stage:
    """Make the locations, NPCs and the scene that are not there yet; needs an admin's login."""
    builder = _Builder(client)
    location_ids = {place.name: builder.location(place) for place in story.LOCATIONS}
    npc_ids = {character.name: builder.npc(character, location_ids) for character in story.NPCS}
    scene_id = builder.scene(story.harbour_scene(npc_ids))
    for place in story.LOCATIONS:
        builder.doors(place, location_ids[place.name], scene_id)
    return Stage(location_ids, npc_ids, scene_id, tuple(builder.made))


class _Builder:
    def __init__(self, client: GameClient) -> None:
        self._client = client
        self.made: list[str] = []

    def location(self, place: story.Place) -> int:
        new = {"name": place.name, "x": place.x, "y": place.y, "meta": {"demo": True}}
        return self._once("name", place.name, "/game/locations/", new)

    def npc(self, character: story.Character, location_ids: dict[str, int]) -> int:
        new = {
            "name": character.name,
            "personality": character.personality,
            "home_location_id": location_ids[character.home],
        }
        npc_id = self._once("name", character.name, "/game/npcs/", new)
        if character.name in self.made:
            week = [entry for stay in character.week for entry in stay.entries(location_ids[stay.place])]
            self._client.call("PUT", f"/game/npcs/{npc_id}/schedule", json=week)
        return npc_id

    def scene(self, graph: dict[str, Any]) -> int:
        return self._once("title", graph["title"], "/game/scenes/", graph)

    def doors(self, place: story.Place, location_id: int, scene_id: int) -> None:
        if place.name in self.made:
            hotspots = [
                {"object_name": name, "hotspot_id": spot, "linked_scene_id": scene_id} for name, spot in place.doors
            ]
            self._client.call("PUT", f"/game/locations/{location_id}/hotspots", json={"hotspots": hotspots})

    def _once(self, key: str, value: str, path: str, new: dict[str, Any]) -> int:
        found = self._client.find_by(key, value, path)
        if found is None:
            found = self._client.call("POST", path, json=new)
            self.made.append(value)
        return int(found["id"])
