"""The small world of the demo, as values: who lives where, when, and the scene that is played.

Names are the keys: the demo finds what it made before by its name, so that a second run adds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = [
    "LOCATIONS",
    "LOCKED",
    "MARK",
    "NPCS",
    "PATROL",
    "SCENE_TITLE",
    "THIEF_TRIES",
    "WALK",
    "WATCHES",
    "Character",
    "Place",
    "Stay",
    "harbour_scene",
]

HOUR = 3600
DAY = 86_400
MONDAY, TUESDAY, WEDNESDAY, THURSDAY, FRIDAY, SATURDAY, SUNDAY = range(7)
WORKDAYS = (MONDAY, TUESDAY, WEDNESDAY, THURSDAY, FRIDAY, SATURDAY)

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """A location, with the objects in its picture that start the scene when clicked."""

    name: str
    x: float
    y: float
    doors: tuple[tuple[str, str], ...] = ()
    """(object_name, hotspot_id) of hotspots that link to the scene."""


@dataclass(frozen=True, slots=True)
class Stay:
    """Hours that a character spends at a place on each of some days; overnight when they end before they start."""

    days: tuple[int, ...]
    start_hour: float
    end_hour: float
    place: str
    activity: str

    def entries(self, location_id: int) -> list[JsonObject]:
        """The stay as entries of a schedule, one for each day."""
        return [
            {
                "day_of_week": day,
                "start_time": self.start_hour * HOUR,
                "end_time": self.end_hour * HOUR,
                "location_id": location_id,
                "rule": {"activity": self.activity},
            }
            for day in self.days
        ]


@dataclass(frozen=True, slots=True)
class Character:
    """An NPC with its week; of stays that overlap the first holds."""

    name: str
    home: str
    personality: JsonObject
    week: tuple[Stay, ...]


LOCATIONS = (
    Place("Harbour Gate", 0, 0, doors=(("gate", "knocker"),)),
    Place("Market Square", 40, 10, doors=(("stall", "awning"), ("fountain", "rim"))),
    Place("The Gilded Anchor", 55, 25),
    Place("Watch House", 20, 45),
)

NPCS = (
    Character(
        "Mira the Merchant",
        home="The Gilded Anchor",
        personality={"traits": ["shrewd", "warm"], "wares": ["lamp oil", "maps"]},
        week=(
            Stay((SUNDAY,), 10, 12, "Harbour Gate", "meeting the ferry"),
            Stay(WORKDAYS, 8, 18, "Market Square", "selling"),
        ),
    ),
    Character(
        "Bram the Night Watchman",
        home="Watch House",
        personality={"traits": ["gruff", "loyal"]},
        week=(Stay(tuple(range(7)), 22, 6, "Harbour Gate", "keeping watch"),),
    ),
    Character(
        "Old Tobias",
        home="The Gilded Anchor",
        personality={"traits": ["talkative"]},
        week=(Stay((MONDAY, WEDNESDAY, FRIDAY), 9, 11.5, "Market Square", "feeding the gulls"),),
    ),
)

PATROL = "Bram the Night Watchman"
"""Whom the demo calls away by hand, to show a stored location winning over the schedule."""

WATCHES = (
    ("Monday 07:00", 7 * HOUR),
    ("Monday 10:00", 10 * HOUR),
    ("Monday 23:00", 23 * HOUR),
    ("Tuesday 05:59", DAY + 6 * HOUR - 60),
    ("Tuesday 06:00", DAY + 6 * HOUR),
    ("Sunday 11:00", 6 * DAY + 11 * HOUR),
)
"""The moments at which the demo looks around, as (name, world time); in order, since time only advances."""

SCENE_TITLE = "Arrival at the Old Harbour"
WALK = ("enter", "to-market", "greet-mira", "to-anchor")
"""The edges that the demo takes, in order."""

LOCKED = "sneak-in"
"""An edge whose condition does not hold."""

MARK = "Mira the Merchant"
"""Whose pockets are picked."""

THIEF_TRIES = 40
"""After this many attempts the thief gives up: without the loaded dice, luck may hold."""


def harbour_scene(npc_ids: Mapping[str, int]) -> JsonObject:
    """The scene graph; the merchant's id names the relationship that some edges change or ask for."""
    mira = f"npc:{npc_ids[MARK]}"
    return {
        "title": SCENE_TITLE,
        "description": "A ferry lands, a gate opens, and somebody at the market is worth knowing.",
        "entry_node_id": "ferry",
        "meta": {"demo": True},
        "nodes": [
            {"id": "ferry", "label": "The ferry lands", "skippable": True},
            {"id": "gate", "label": "At the harbour gate"},
            {"id": "market", "label": "On the market square", "loopable": True},
            {"id": "mira", "label": "Mira smiles at you"},
            {"id": "anchor", "label": "A table at the Gilded Anchor"},
        ],
        "edges": [
            _edge("enter", "ferry", "gate", "Walk up to the gate", effects=[_set("arrived")]),
            _edge("to-market", "gate", "market", "Follow the smell of lamp oil", conditions=[_flag("arrived")]),
            _edge(
                "greet-mira",
                "market",
                "mira",
                "Greet the merchant",
                effects=[
                    _set("met.mira"),
                    {"type": "increment_flag", "path": "coins", "by": 5},
                    {"type": "change_relationship", "subject": mira, "field": "affinity", "by": 30, "max": 100},
                ],
            ),
            _edge("wander", "market", "market", "Look at the fountain", cooldown_sec=2),
            _edge(
                "to-anchor",
                "mira",
                "anchor",
                "Accept her invitation",
                conditions=[
                    _flag("met.mira"),
                    {"type": "relationship", "subject": mira, "field": "affinity", "op": "gte", "value": 20},
                ],
            ),
            _edge("sneak-in", "gate", "anchor", "Slip in by the back door", conditions=[_flag("has_key")]),
        ],
    }


def _edge(edge_id: str, start: str, end: str, label: str, **more: Any) -> JsonObject:
    return {"id": edge_id, "from": start, "to": end, "choice_label": label, **more}


def _flag(path: str) -> JsonObject:
    return {"type": "flag", "path": path}


def _set(path: str) -> JsonObject:
    return {"type": "set_flag", "path": path}
