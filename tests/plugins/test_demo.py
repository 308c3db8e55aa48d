"""The demo: played on a private server, and against a running one."""

from __future__ import annotations

import functools
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio.to_thread
import httpx
import pytest
from rich.console import Console

from pixsim7_backend.demo import DemoError, plugins, report, run, story
from pixsim7_backend.demo.client import Event
from pixsim7_backend.demo.play import Step
from pixsim7_backend.settings import Settings
from tests.plugins.conftest import PASSWORD, Backend

pytestmark = pytest.mark.anyio

EVENTS = "/api/v1/demo/events/"


@pytest.fixture(scope="module")
def backend_settings(backend_settings: Settings) -> Settings:
    """The backend inside this process also loads the demo's own plugins."""
    return backend_settings.model_copy(update={"extra_plugins_dirs": (str(Path(plugins.__file__).parent),)})


# --- on a private server --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``pixsim7 demo --json`` prints, from a directory without any installation."""
    command = [sys.executable, "-m", "pixsim7_backend", "demo", "--json"]
    root = Path(plugins.__file__).parents[3]
    place = tmp_path_factory.mktemp("elsewhere")
    done = subprocess.run(
        command, cwd=place, env={"PYTHONPATH": str(root)}, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert list(place.iterdir()) == [], "the demo leaves nothing behind"
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def step(played: dict[str, Any], title: str) -> dict[str, Any]:
    """The one step with this title."""
    (found,) = [each for each in played["steps"] if each["title"] == title]
    result: dict[str, Any] = found
    return result


def fired(step: dict[str, Any]) -> list[list[Any]]:
    """The events of a step as [name, *payload]."""
    return [[each["event"], *each["payload"]] for each in step["events"]]


def test_the_servers_own_start_is_heard(played: dict[str, Any]) -> None:
    """Every plugin is loaded, then enabled, in the same order, the demo's own ones among them; then the app starts."""
    events = fired(step(played, "The server starts"))
    loaded = [event[1] for event in events if event[0] == "plugin:loaded"]
    enabled = [event[1] for event in events if event[0] == "plugin:enabled"]
    assert loaded == enabled
    assert {"auth", "game-stealth", "game-npcs", "demo-observer", "demo-dice"} <= set(loaded)
    assert events[-1] == ["app:startup"]


def test_the_stage_is_filled_and_each_npc_is_announced(played: dict[str, Any]) -> None:
    """Four places, three people and a scene, all made by this run."""
    filled = step(played, "The stage is set")
    assert [row["kind"] for row in filled["table"]] == ["location"] * 4 + ["NPC"] * 3 + ["scene"]
    assert {row[""] for row in filled["table"]} == {"made"}
    assert fired(filled) == [["npc:spawned", 1], ["npc:spawned", 2], ["npc:spawned", 3]]


def test_the_scene_is_walked_and_a_locked_door_stays_locked(played: dict[str, Any]) -> None:
    """Each edge announces its change; the edge whose condition fails is refused and announces nothing."""
    titles = [each["title"] for each in played["steps"]]
    walked = titles[titles.index("A session begins") :][:6]
    assert walked == [
        "A session begins",
        "Walk up to the gate",
        "Slip in by the back door",
        "Follow the smell of lamp oil",
        "Greet the merchant",
        "Accept her invitation",
    ]
    assert fired(step(played, "A session begins")) == [["session:created", 1]]
    refused = step(played, "Slip in by the back door")
    assert "has_key" in refused["told"]
    assert refused["told"].startswith("Refused (409)")
    assert refused["events"] == []
    greeted = {"current_node_id": "mira", "flags": {"met": {"mira": True}, "coins": 5}}
    assert fired(step(played, "Greet the merchant")) == [
        ["session:updated", 1, greeted | {"relationships": {"npc:1": {"affinity": 30}}}]
    ]


MIRA, BRAM, TOBIAS = (character.name for character in story.NPCS)
AT_HOME = {MIRA: ("The Gilded Anchor", ""), BRAM: ("Watch House", ""), TOBIAS: ("The Gilded Anchor", "")}


@pytest.mark.parametrize(
    ("title", "out"),
    [
        ("Monday 07:00: who is where?", {}),
        (
            "Monday 10:00: who is where?",
            {MIRA: ("Market Square", "selling"), TOBIAS: ("Market Square", "feeding the gulls")},
        ),
        ("Monday 23:00: who is where?", {BRAM: ("Harbour Gate", "keeping watch")}),
        ("Tuesday 05:59: who is where?", {BRAM: ("Harbour Gate", "keeping watch")}),
        ("Tuesday 06:00: who is where?", {}),
        ("Sunday 11:00: who is where?", {MIRA: ("Harbour Gate", "meeting the ferry")}),
        ("Bram is called away", {MIRA: ("Harbour Gate", "meeting the ferry"), BRAM: ("The Gilded Anchor", "")}),
        ("Bram goes his way", {MIRA: ("Harbour Gate", "meeting the ferry")}),
    ],
)
def test_people_are_met_by_their_schedules(played: dict[str, Any], title: str, out: dict[str, tuple[str, str]]) -> None:
    """By day, overnight into the next day, and put somewhere by hand; else they are at home."""
    table = step(played, title)["table"]
    assert {row["who"]: (row["where"], row["doing"]) for row in table} == AT_HOME | out


def test_moves_by_hand_are_announced(played: dict[str, Any]) -> None:
    """From the schedule's care into the tavern and back."""
    assert fired(step(played, "Bram is called away")) == [["location:changed", 2, None, 3]]
    assert fired(step(played, "Bram goes his way")) == [["location:changed", 2, 3, None]]


def test_a_pocket_is_picked_until_caught(played: dict[str, Any]) -> None:
    """The loaded dice tell the same story every time: failed, stolen, stolen, failed and seen."""
    told = [each["told"] for each in played["steps"] if "purse" in each["title"]]
    assert told == [
        "Pickpocket attempt on NPC #1 failed.",
        "You successfully pickpocketed NPC #1!",
        "You successfully pickpocketed NPC #1!",
        "Pickpocket attempt on NPC #1 failed. You were detected!",
    ]
    for each in played["steps"]:
        if "purse" in each["title"]:
            assert [event[0] for event in fired(each)] == ["interaction:executed", "session:updated"]
    remembered = {row["what"]: row["value"] for row in step(played, "What is remembered")["table"]}
    assert remembered == {
        "coins": "5",
        "attempts": "4",
        "stolen": "2",
        f"suspicion of {MIRA}": "0.25",
        f"affinity of {MIRA}": "20",
        "entries in the history": "9",
    }


def test_all_events_are_counted(played: dict[str, Any]) -> None:
    """The sum at the end is that of the steps."""
    assert played["events"] == {
        "plugin:loaded": played["events"]["plugin:enabled"],
        "plugin:enabled": played["events"]["plugin:loaded"],
        "app:startup": 1,
        "npc:spawned": 3,
        "session:created": 1,
        "session:updated": 8,
        "location:changed": 2,
        "interaction:executed": 4,
    }


# --- against a running server ---------------------------------------------------------------------


async def play(backend: Backend, login: str, password: str = PASSWORD) -> int:
    """Run the demo against the server."""
    return await anyio.to_thread.run_sync(functools.partial(run, backend.url, login=login, password=password))


async def totals(client: httpx.AsyncClient) -> dict[str, int]:
    """How many of each thing of the game the client sees."""
    kinds = ("locations", "npcs", "scenes", "worlds", "sessions")
    return {kind: (await client.get(f"/api/v1/game/{kind}/")).json()["total"] for kind in kinds}


async def test_a_second_run_adds_nothing(live_backend: Backend, capsys: pytest.CaptureFixture[str]) -> None:
    """Places, people and the scene are found by name; sessions, worlds and logins go with each run."""
    admin = await live_backend.sign_up("boss", role="admin")
    for word in ("made", "was there"):
        assert await play(live_backend, "boss") == 0
        printed = capsys.readouterr().out
        assert printed.count(f"  {word}") == 8, printed
        assert "This server shows no events" in printed
        assert "EXTRA_PLUGINS_DIRS" in printed
        assert await totals(admin) == {"locations": 4, "npcs": 3, "scenes": 1, "worlds": 0, "sessions": 0}
    assert (await admin.get("/api/v1/auth/sessions")).json()["total"] == 1


async def test_a_scene_of_the_same_title_is_left_alone(live_backend: Backend) -> None:
    """The demo plays its own scene only, says so, and takes its session and world along."""
    admin = await live_backend.sign_up("boss", role="admin")
    other = {"title": story.SCENE_TITLE, "entry_node_id": "a", "nodes": [{"id": "a"}]}
    assert (await admin.post("/api/v1/game/scenes/", json=other)).status_code == 201
    with pytest.raises(DemoError, match="is another one; rename it"):
        await play(live_backend, "boss")
    assert await totals(admin) == {"locations": 4, "npcs": 3, "scenes": 1, "worlds": 0, "sessions": 0}


async def test_what_keeps_the_demo_from_playing_is_said(live_backend: Backend) -> None:
    """No admin, a wrong password, nobody there, no address: one sentence, and nothing is left behind."""
    player = await live_backend.sign_up("player")
    with pytest.raises(DemoError, match="player is no admin"):
        await play(live_backend, "player")
    with pytest.raises(DemoError, match="POST /auth/login was answered by 401"):
        await play(live_backend, "player", "wrong horse battery")
    with pytest.raises(DemoError, match="does not answer"):
        run("http://127.0.0.1:1", login="boss", password=PASSWORD)
    with pytest.raises(DemoError, match="is not an address"):
        run("http://127.0.0.1:port", login="boss", password=PASSWORD)
    with pytest.raises(DemoError, match=r"is no PixSim7 backend|was answered by"):
        run(f"{live_backend.url}/docs?", login="boss", password=PASSWORD)
    assert (await player.get("/api/v1/auth/sessions")).json()["total"] == 1
    assert sum((await totals(player)).values()) == 0


# --- the observer ---------------------------------------------------------------------------------


async def test_only_admins_observe(
    backend: Backend, admin_client: httpx.AsyncClient, user_client: httpx.AsyncClient
) -> None:
    """Events may tell of other players."""
    assert (await backend.get(EVENTS)).status_code == 401
    assert (await user_client.get(EVENTS)).status_code == 403
    assert (await admin_client.get(EVENTS)).status_code == 200


async def test_events_are_numbered_and_asked_for_from_the_last_seen(admin_client: httpx.AsyncClient) -> None:
    """Numbers rise by one; ``after`` leaves out what was seen, and a strange one is 422."""
    events = (await admin_client.get(EVENTS)).json()
    numbers = [event["number"] for event in events]
    assert numbers == list(range(1, len(events) + 1))
    assert events[0]["event"] == "plugin:loaded"
    last = (await admin_client.get(EVENTS, params={"after": numbers[-2]})).json()
    assert last == events[-1:]
    for after in ("-1", "x", "NaN"):
        assert (await admin_client.get(EVENTS, params={"after": after})).status_code == 422


def test_the_observer_keeps_a_bounded_log() -> None:
    """The oldest events go first, and what is not JSON becomes text."""
    from pixsim7_backend.demo.plugins.demo_observer.log import KEPT, EventLog

    log = EventLog()
    for number in range(KEPT + 5):
        log.append("quest:finished", [number, {"path": Path("x")}])
    kept = log.after(0)
    assert (len(kept), kept[0].number, kept[-1].number) == (KEPT, 6, KEPT + 5)
    assert kept[-1].payload == [KEPT + 4, {"path": "x"}]


# --- showing it -----------------------------------------------------------------------------------


def test_a_step_is_shown_with_its_table_and_events() -> None:
    """A run of equal events stands on one line, long payloads are cut, markup in names is text."""
    console = Console(record=True, width=140, force_terminal=False, file=io.StringIO(), markup=False)
    long = {"flags": {"note": "x" * 300}}
    shown = report.show(
        [
            Step("[bold]Title[/bold]", "Told.", ("who", "where"), (("[red]Mira", "Square"),)),
            Step("Events", events=(Event("npc:spawned", (1,)), Event("npc:spawned", (2,)), Event("app:startup", ()))),
            Step("Long", events=(Event("session:updated", (1, long)),)),
        ],
        console,
    )
    text = console.export_text()
    assert len(shown) == 3
    assert "[bold]Title[/bold]" in text
    assert "[red]Mira" in text
    assert "event npc:spawned 1, 2" in text
    assert "event app:startup" in text
    assert "x" * 60 in text
    assert "x" * 120 not in text
    assert report.to_json(shown)["steps"][2]["events"][0]["payload"] == [1, long]
