"""Plays the demo's world through over HTTP, one step at a time.

A step is a value; whoever iterates shows it, or keeps it. What the play makes for itself (a world and a
session) is removed in the end, also when it breaks off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from . import story
from .client import DemoError, Event, EventFeed, GameClient, RefusedError
from .stage import Stage, set_stage

__all__ = ["Step", "play"]

SESSION_UPDATED = "session:updated"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened: a title, a sentence, perhaps a table, and the events that it fired."""

    title: str
    told: str = ""
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    events: tuple[Event, ...] = ()


def play(client: GameClient, feed: EventFeed) -> Iterator[Step]:
    """Fill the world and play it through; ``client`` is logged in as an admin.

    Raises:
        DemoError: the server refused something, or did not announce what it did.
    """
    if feed.is_available:
        yield Step("The server starts", "Each plugin is loaded, then enabled.", events=feed.take("app:startup"))
    stage = set_stage(client)
    yield _stage_is_set(stage, feed)
    with _begun(client, stage) as (world_id, session):
        yield Step(
            "A session begins",
            f"Session {session['id']} in world {world_id}, at {session['current_node_id']!r}.",
            events=feed.take("session:created"),
        )
        player = _Player(client, feed, stage, world_id, session["id"])
        yield from player.walk()
        yield from player.look_around()
        yield from player.call_away()
        yield from player.steal()
        yield player.remember()
    yield Step("The curtain falls", "The session and its world are gone; places, people and the scene stay.")


def _stage_is_set(stage: Stage, feed: EventFeed) -> Step:
    kinds = [("location", stage.location_ids), ("NPC", stage.npc_ids), ("scene", {story.SCENE_TITLE: stage.scene_id})]
    rows = [
        (kind, str(number), name, "made" if name in stage.made else "was there")
        for kind, ids in kinds
        for name, number in ids.items()
    ]
    born = ["npc:spawned" for name in stage.npc_ids if name in stage.made]
    return Step(
        "The stage is set",
        "What is there already, by its name, stays as it is.",
        columns=("kind", "id", "name", ""),
        rows=tuple(rows),
        events=feed.take(*born),
    )


@contextmanager
def _begun(client: GameClient, stage: Stage) -> Iterator[tuple[int, dict[str, Any]]]:
    world = client.call("POST", "/game/worlds/", json={"name": "The demo's world"})
    try:
        session = client.call("POST", "/game/sessions/", json={"scene_id": stage.scene_id, "world_id": world["id"]})
        try:
            yield world["id"], session
        finally:
            client.call("DELETE", f"/game/sessions/{session['id']}")
    finally:
        client.call("DELETE", f"/game/worlds/{world['id']}")


@dataclass(frozen=True, slots=True)
class _Player:
    """Somebody in the middle of the play."""

    client: GameClient
    feed: EventFeed
    stage: Stage
    world_id: int
    session_id: int

    def walk(self) -> Iterator[Step]:
        """Take the edges of the walk, after trying a door that is locked."""
        scene = self.client.call("GET", f"/game/scenes/{self.stage.scene_id}")
        edges = {edge["id"]: edge for edge in scene["edges"]}
        if not edges.keys() >= {*story.WALK, story.LOCKED}:
            raise DemoError(f"scene {scene['id']} is called {scene['title']!r} but is another one; rename it")
        labels = {node["id"]: node["label"] for node in scene["nodes"]}
        yield self._take(edges[story.WALK[0]], labels)
        yield self._try(edges[story.LOCKED])
        for edge_id in story.WALK[1:]:
            yield self._take(edges[edge_id], labels)

    def _take(self, edge: dict[str, Any], labels: dict[str, str]) -> Step:
        self._advance(edge)
        told = f"{labels[edge['from']]} -> {labels[edge['to']]}"
        return Step(edge["choice_label"], told, events=self.feed.take(SESSION_UPDATED))

    def _try(self, edge: dict[str, Any]) -> Step:
        try:
            self._advance(edge)
        except RefusedError as refusal:
            return Step(edge["choice_label"], f"Refused ({refusal.status}): {refusal.detail}.")
        return Step(edge["choice_label"], "The door is open.", events=self.feed.take(SESSION_UPDATED))

    def _advance(self, edge: dict[str, Any]) -> None:
        self.client.call("POST", f"/game/sessions/{self.session_id}/advance", json={"edge_id": edge["id"]})

    def look_around(self) -> Iterator[Step]:
        """Let the world's time go on and meet people where their schedules take them."""
        now = 0.0
        for name, moment in story.WATCHES:
            delta = {"delta_seconds": moment - now}
            now = self.client.call("POST", f"/game/worlds/{self.world_id}/advance", json=delta)["world_time"]
            yield self._who_is_where(f"{name}: who is where?", events=self.feed.take())

    def call_away(self) -> Iterator[Step]:
        """Put an NPC somewhere by hand, which wins over its schedule, and let it go again."""
        tavern = story.NPCS[0].home
        for location, told in (
            (tavern, f"An admin puts {story.PATROL} into {tavern}; no schedule holds him now."),
            (None, "The admin lets him go; his schedule holds again."),
        ):
            state: dict[str, Any] = {"current_location_id": location and self.stage.location_ids[location], "state": {}}
            self.client.call(
                "PUT",
                f"/game/npcs/{self.stage.npc_ids[story.PATROL]}/state",
                params={"world_id": self.world_id},
                json=state,
            )
            title = "Bram is called away" if location else "Bram goes his way"
            yield self._who_is_where(title, told, events=self.feed.take("location:changed"))

    def _who_is_where(self, title: str, told: str = "", *, events: tuple[Event, ...]) -> Step:
        found = self.client.call("GET", "/game/npcs/presence", params={"world_id": self.world_id})
        names = {number: name for name, number in self.stage.npc_ids.items()}
        rows = [
            (names[each["npc_id"]], self.stage.location_name(each["location_id"]), each["state"].get("activity", ""))
            for each in found
            if each["npc_id"] in names
        ]
        return Step(title, told, ("who", "where", "doing"), tuple(rows), events)

    def steal(self) -> Iterator[Step]:
        """Pick the merchant's pockets until caught."""
        attempt = {
            "session_id": self.session_id,
            "npc_id": self.stage.npc_ids[story.MARK],
            "slot_id": "purse",
            "base_success_chance": 0.6,
            "detection_chance": 0.2,
            "world_id": self.world_id,
        }
        for number in range(1, story.THIEF_TRIES + 1):
            result = self.client.call("POST", "/game/stealth/pickpocket", json=attempt)
            events = self.feed.take("interaction:executed", SESSION_UPDATED)
            yield Step(f"A hand in {story.MARK}'s purse, attempt {number}", result["message"], events=events)
            if result["detected"]:
                return

    def remember(self) -> Step:
        """Tell what the session remembers of it all."""
        session = self.client.call("GET", f"/game/sessions/{self.session_id}")
        record = self.client.call("GET", f"/game/stealth/sessions/{self.session_id}")
        history = self.client.call("GET", f"/game/sessions/{self.session_id}/events", params={"limit": 100})
        key = f"npc:{self.stage.npc_ids[story.MARK]}"
        attempts = record["pickpocket_attempts"]
        rows = [
            ("coins", session["flags"].get("coins", 0)),
            ("attempts", len(attempts)),
            ("stolen", sum(each["success"] for each in attempts)),
            (f"suspicion of {story.MARK}", record["suspicion"].get(key, 0)),
            (f"affinity of {story.MARK}", session["relationships"].get(key, {}).get("affinity", 0)),
            ("entries in the history", history["total"]),
        ]
        return Step("What is remembered", columns=("what", "value"), rows=_as_text(rows), events=self.feed.take())


def _as_text(rows: Sequence[tuple[str, Any]]) -> tuple[tuple[str, ...], ...]:
    return tuple((name, str(value)) for name, value in rows)
