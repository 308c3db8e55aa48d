"""What confined plugins may do: asked, decided, audited, in force. A loader without jails runs their code here."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import fastapi
import pytest
from fastapi import FastAPI, Header, HTTPException, Request

from pixsim7_backend.infrastructure import plugins as platform
from pixsim7_backend.infrastructure.plugins import PluginError, PluginState, StateStore
from pixsim7_backend.infrastructure.plugins._code.loader import PluginCode, load_code
from pixsim7_backend.infrastructure.plugins._control.commands import Commands
from pixsim7_backend.infrastructure.plugins._grants.permissions import Grants
from pixsim7_backend.infrastructure.plugins._jail.level import ConfinementLevel, ConfinementReport
from pixsim7_backend.infrastructure.plugins._ledger.ownership import Owner
from pixsim7_backend.infrastructure.plugins._plan.plan import Candidate
from pixsim7_backend.infrastructure.plugins.admin import admin_router
from pixsim7_backend.infrastructure.plugins.errors import (
    ConfigurationError,
    ConfinementError,
    DuplicatePluginError,
    EventTakenError,
    GrantNeededError,
    GrantRefusedError,
    TrespassError,
)
from pixsim7_backend.infrastructure.plugins.preview import preview
from pixsim7_backend.infrastructure.plugins.testing import MemoryStateStore, PluginHost, plugin_host, write_plugin

pytestmark = pytest.mark.anyio
AT = "/admin/plugins"
ADMIN = {"X-Admin": "7"}
CONFINED = ConfinementReport(level=ConfinementLevel.CONFINED)


class Unconfined:
    """Runs confined plugins in this process, and notes what each was granted; one that is ``broken`` does not load."""

    def __init__(self) -> None:
        self.on_given_up: Callable[[str, str], None] = lambda _plugin, _evidence: None
        self.granted: list[tuple[str, list[str]]] = []
        self.regranted: list[tuple[str, list[str]]] = []
        self.is_broken = False

    def load(self, candidate: Candidate, _owner: Owner, grants: Grants, _settings: Mapping[str, Any]) -> PluginCode:
        if self.is_broken:
            raise PluginError("it does not load", plugin=candidate.id)
        self.granted.append((candidate.id, grants.to_json()["granted"]))
        return load_code(candidate.source, candidate.id)

    async def regrant(self, plugin: str, grants: Grants) -> None:
        self.regranted.append((plugin, grants.to_json()["granted"]))

    def forget(self, plugin: str) -> None:
        """Nothing is counted."""


async def only_admins(request: Request, x_admin: Annotated[str, Header()] = "") -> None:
    if not x_admin:
        raise HTTPException(403, "only admins")
    request.state.operator = f"admin {x_admin}"


@asynccontextmanager
async def hosted(tmp_path: Path, jails: Unconfined | None = None, **options: Any) -> AsyncIterator[PluginHost]:
    """A host with the trusted plugin ``base``, and the plugins in ``strangers``."""
    app = FastAPI()
    app.include_router(admin_router(guard=only_admins, prefix=AT))
    if not (tmp_path / "plugins").exists():
        write_plugin(tmp_path / "plugins", "base")
    loader = jails or Unconfined()
    defaults: dict[str, Any] = {
        "jails": lambda: loader,
        "confinement": lambda: CONFINED,
        "community_directory": tmp_path / "strangers",
    }
    async with plugin_host(tmp_path / "plugins", app=app, **(defaults | options)) as host:
        yield host


def stranger(tmp_path: Path, plugin: str = "quest", code: str = "", **fields: Any) -> Path:
    return write_plugin(tmp_path / "strangers", plugin, code, **fields)


def version(tmp_path: Path, number: str, *permissions: str) -> Path:
    """Write this version of the plugin ``quest``, which answers with its number."""
    code = f'@router.get("/version")\ndef version() -> str: return "{number}"'
    return stranger(tmp_path, code=code, version=number, permissions=list(permissions))


async def served(host: PluginHost) -> str | int:
    answer = await host.client.get("/api/v1/quest/version")
    return str(answer.json()) if answer.status_code == 200 else answer.status_code


# --- before it starts -------------------------------------------------------------------------------


async def test_nothing_starts_before_everything_is_decided(tmp_path: Path) -> None:
    """What is undecided blocks, with the command that decides; a decision starts it at once, and lasts."""
    store, jails = MemoryStateStore(), Unconfined()
    version(tmp_path, "1.0.0", "db:read", "user:read")
    async with hosted(tmp_path, jails, store=store) as host:
        record = host.assert_state("quest", PluginState.BLOCKED)
        assert str(record.reason) == (
            "plugin 'quest' asks for db:read, user:read, about which nobody has decided;"
            " pixsim7 plugins enable quest --grant db:read --grant user:read (or --grant none)"
        )
        assert record.source.is_confined
        with pytest.raises(GrantNeededError):
            await host.manager.enable("quest")
        await host.manager.enable("quest", grant=["db:read:npcs"], by="me")
        assert await served(host) == "1.0.0"
    async with hosted(tmp_path, jails, store=store) as host:
        host.assert_state("quest", PluginState.ENABLED)
        view = host.manager.grants_of("quest")
        assert view is not None
        assert view.to_json() == {
            "requested": ["db:read", "user:read"],
            "granted": ["db:read:npcs"],
            "declined": ["db:read", "user:read"],
            "undecided": [],
        }
    assert jails.granted == [("quest", ["db:read:npcs"])] * 2


async def test_one_that_asks_for_nothing_starts(tmp_path: Path) -> None:
    """There is nothing to decide."""
    version(tmp_path, "1.0.0")
    async with hosted(tmp_path) as host:
        assert await served(host) == "1.0.0"


@pytest.mark.parametrize("how", ["manifest", "operator", "setting"])
async def test_what_is_off_is_simply_off(tmp_path: Path, how: str) -> None:
    """Nobody is asked about permissions of a plugin that shall not run."""
    stranger(tmp_path, permissions=["db:read"], enabled=how != "manifest")
    store = MemoryStateStore()
    async with hosted(tmp_path, store=store, disabled=["quest"] if how == "setting" else ()) as host:
        if how == "operator":
            await host.manager.disable("quest")
        host.assert_state("quest", PluginState.DISABLED)
        assert host.manager.plan().problems == ()


@pytest.mark.parametrize(
    ("grant", "problem"),
    [
        (["db:write"], "the plugin does not ask for 'db:write'; it asks for: db:read"),
        (["none", "db:read"], "'none' stands for no permission at all; grant it alone"),
        (["no such"], "unknown permission 'no such'"),
    ],
)
async def test_what_cannot_be_granted_is_refused(tmp_path: Path, grant: list[str], problem: str) -> None:
    """The text says what could be; nothing is stored."""
    stranger(tmp_path, permissions=["db:read"])
    store = MemoryStateStore()
    async with hosted(tmp_path, store=store) as host:
        with pytest.raises(GrantRefusedError) as caught:
            await host.manager.enable("quest", grant=grant)
        assert str(caught.value).startswith(f"plugin 'quest' was granted nothing: {problem}")
        host.assert_state("quest", PluginState.BLOCKED)
    assert (store.state.grants, store.state.audit, store.state.version) == ({}, (), 0)


async def test_trusted_plugins_need_no_permission(tmp_path: Path) -> None:
    """They start whatever they ask for, and are granted nothing; so do strangers' that shall run in process."""
    write_plugin(tmp_path / "plugins", "base", permissions=["db:write"])
    stranger(tmp_path, permissions=["db:write"])
    async with hosted(tmp_path, isolation={"Quest": "in-process"}) as host:
        for plugin in ("base", "quest"):
            host.assert_state(plugin, PluginState.ENABLED)
            assert host.manager.describe(plugin)["grants"] is None
            with pytest.raises(GrantRefusedError, match="it runs in the server's own process"):
                await host.manager.grant(plugin, ["all"])


async def test_who_takes_anothers_name_does_not_get_its_trust(tmp_path: Path) -> None:
    """A folder that claims an id which is not its own stays confined."""
    folder = stranger(tmp_path, id="friend", permissions=["db:read"])
    async with hosted(tmp_path, isolation={"friend": "in-process"}) as host:
        record = host.assert_state("friend", PluginState.BLOCKED)
        assert (record.source.path, record.source.is_confined) == (folder, True)


async def test_a_stranger_never_displaces_a_trusted_plugin(tmp_path: Path) -> None:
    """Of one id, the stranger's is left out."""
    stranger(tmp_path, "base")
    async with hosted(tmp_path) as host:
        assert not host.assert_state("base", PluginState.ENABLED).source.is_confined
        [(rejected, error)] = host.manager.plan().rejected
        assert isinstance(error, DuplicatePluginError)
        assert rejected.source.is_confined


async def test_the_directory_is_none_of_the_trusted_ones(tmp_path: Path) -> None:
    """Else nobody could say whom to trust; also when it goes by another name."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "same").symlink_to(tmp_path / "plugins")
    with pytest.raises(ConfigurationError, match="strangers' plugins need one of their own"):
        async with plugin_host(tmp_path / "plugins", community_directory=tmp_path / "same"):
            pass


async def test_the_directory_lies_where_no_jail_reads(tmp_path: Path) -> None:
    """Not in the interpreter's or the platform's folders, also by a link: there every jail could read every plugin."""
    for code in (platform.__file__, fastapi.__file__, json.__file__):
        inside = Path(str(code)).parent / "community_plugins"
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(inside)
        for place in (inside, tmp_path / "link"):
            with pytest.raises(ConfigurationError, match="every jail may read what is there"):
                async with hosted(tmp_path, community_directory=place):
                    pass
            with pytest.raises(ConfigurationError, match="name a directory outside of the code"):
                preview([tmp_path / "plugins"], community_directory=place)


async def test_where_the_machine_cannot_confine_nothing_runs(tmp_path: Path) -> None:
    """Unless the operator lowers the floor; trusted plugins do not care."""
    version(tmp_path, "1.0.0")
    weak = ConfinementReport(level=ConfinementLevel.LIMITS, notes=("no Landlock",))
    async with hosted(tmp_path, confinement=lambda: weak) as host:
        reason = host.assert_state("quest", PluginState.BLOCKED).reason
        assert isinstance(reason, ConfinementError)
        assert "only the level 'limits' of confinement where 'confined' is demanded (no Landlock)" in str(reason)
        host.assert_state("base", PluginState.ENABLED)
        answer = await host.client.get(f"{AT}/confinement", headers=ADMIN)
        assert answer.json()["is_reached"] is False
        assert answer.json()["report"]["notes"] == ["no Landlock"]
    async with hosted(tmp_path, confinement=lambda: weak, community_floor="limits") as host:
        assert await served(host) == "1.0.0"


# --- while it runs ----------------------------------------------------------------------------------


async def test_an_update_that_asks_for_more_waits(tmp_path: Path) -> None:
    """The old code serves on; the error names what is new, and its command keeps what was granted."""
    jails = Unconfined()
    version(tmp_path, "1.0.0", "db:read")
    async with hosted(tmp_path, jails) as host:
        await host.manager.enable("quest", grant=["db"])
        version(tmp_path, "2.0.0", "db:read", "user:read")
        with pytest.raises(GrantNeededError) as caught:
            await host.manager.refresh(tmp_path / "strangers" / "quest")
        assert caught.value.fields["undecided"] == ("user:read",)
        assert "asks for user:read besides what it may (db:read)" in str(caught.value)
        assert "enable quest --grant db:read --grant user:read" in str(caught.value)
        assert await served(host) == "1.0.0"
        await host.manager.enable("quest", grant=["db:read", "user:read"])
        assert await served(host) == "2.0.0"
        assert jails.granted[-1] == ("quest", ["db:read", "user:read"])


async def test_an_update_that_asks_for_less_needs_nobody(tmp_path: Path) -> None:
    """It runs with what was granted before."""
    version(tmp_path, "1.0.0", "db:read", "user:read")
    async with hosted(tmp_path) as host:
        await host.manager.enable("quest", grant=["all"])
        version(tmp_path, "2.0.0", "db:read:npcs")
        await host.manager.reload("quest")
        assert await served(host) == "2.0.0"


async def test_a_new_decision_reaches_what_runs(tmp_path: Path) -> None:
    """It gets new code with the new grants at once, also where it is off and still in memory."""
    jails = Unconfined()
    version(tmp_path, "1.0.0", "db:read", "user:read")
    async with hosted(tmp_path, jails) as host:
        await host.manager.enable("quest", grant=["all"])
        await host.manager.grant("quest", ["user"])
        assert host.record("quest").generation == 2
        await host.manager.disable("quest")
        await host.manager.grant("quest", ["none"])
        host.assert_state("quest", PluginState.DISABLED)
        await host.manager.enable("quest")
        assert await served(host) == "1.0.0"
    assert [granted for _, granted in jails.granted] == [["db:read", "user:read"], ["user:read"], []]


async def test_what_is_taken_away_is_gone_even_if_the_rest_fails(tmp_path: Path) -> None:
    """A jail that could do more than was decided does not serve on; one that could do less does."""
    jails = Unconfined()
    version(tmp_path, "1.0.0", "db:read", "user:read")
    async with hosted(tmp_path, jails) as host:
        await host.manager.enable("quest", grant=["user"])
        jails.is_broken = True
        with pytest.raises(PluginError, match="it does not load"):
            await host.manager.grant("quest", ["all"])
        assert await served(host) == "1.0.0"
        with pytest.raises(PluginError, match="it does not load"):
            await host.manager.grant("quest", ["none"])
        host.assert_state("quest", PluginState.FAILED)
        assert await served(host) == 404
    assert jails.regranted == [("quest", granted) for granted in (["db:read", "user:read"], [])]


async def test_a_directory_may_come_later(tmp_path: Path) -> None:
    """What is put there while the host runs is found, and is confined like what was there before."""
    async with hosted(tmp_path) as host:
        folder = version(tmp_path, "1.0.0", "db:read")
        with pytest.raises(GrantNeededError):
            await host.manager.refresh(folder)
        assert host.assert_state("quest", PluginState.BLOCKED).source.is_confined
        await host.manager.enable("quest", grant=["none"])
        assert await served(host) == "1.0.0"


async def test_what_waits_is_shown(tmp_path: Path) -> None:
    """Whoever looks at the plugin sees why its files are not what serves, until they are."""
    version(tmp_path, "1.0.0", "db:read")
    async with hosted(tmp_path) as host:
        await host.manager.enable("quest", grant=["db"])
        commands = Commands(host.manager)
        folder = version(tmp_path, "2.0.0", "db:read", "user:read")
        with pytest.raises(GrantNeededError):
            await commands.refresh(str(folder))
        assert "asks for user:read" in commands.plugin("quest")["reload_error"]["message"]
        await commands.enable("quest", grant=["all"])
        assert commands.plugin("quest")["reload_error"] is None


# --- the trail --------------------------------------------------------------------------------------


async def test_every_decision_is_audited(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who, what and when: in the store, in the journal and in the log; forgetting the plugin keeps the trail."""
    caplog.set_level(logging.INFO, "pixsim7.audit")
    store = MemoryStateStore()
    version(tmp_path, "1.0.0", "db:read", "user:read")
    async with hosted(tmp_path, store=store) as host:
        await host.manager.enable("quest", grant=["db"], by="admin 7")
        await host.manager.grant("quest", ["none"], by="user 0")
        told = [each.text for each in host.manager.journal.iter_since() if each.kind == "granted"]
        await host.manager.desired.forget("quest")
    texts = [
        "admin 7 grants quest: db:read; declines: user:read",
        "user 0 grants quest: nothing; declines: db:read, user:read",
    ]
    assert told == texts
    assert [each.getMessage() for each in caplog.records if each.name == "pixsim7.audit"] == texts
    assert [(each["by"], each["plugin"], each["granted"]) for each in store.state.audit] == [
        ("admin 7", "quest", ["db:read"]),
        ("user 0", "quest", []),
    ]
    assert store.state.grants == {}


async def test_what_is_no_permission_any_more_is_undecided(tmp_path: Path) -> None:
    """What an older platform has stored neither grants anything nor stops the start."""
    version(tmp_path, "1.0.0", "db:read")
    store: StateStore = MemoryStateStore()
    kept = store.load()
    grants = {"quest": {"granted": ["db:everything", 7], "declined": []}}
    store.save(type(kept)(grants=grants), expected_version=0)  # type: ignore[arg-type]
    async with hosted(tmp_path, store=store) as host:
        host.assert_state("quest", PluginState.BLOCKED)


# --- over HTTP --------------------------------------------------------------------------------------


async def test_the_admin_api_shows_asks_and_decides(tmp_path: Path) -> None:
    """The request is shown first; decisions name the admin, and heed If-Match."""
    version(tmp_path, "1.0.0", "db:read", "user:read")
    async with hosted(tmp_path) as host:
        client, path = host.client, f"{AT}/quest"
        shown = await client.get(f"{path}/grants", headers=ADMIN)
        assert shown.json()["undecided"] == ["db:read", "user:read"]
        refused = await client.post(f"{path}/enable", headers=ADMIN)
        assert (refused.status_code, refused.json()["error"]["undecided"]) == (409, ["db:read", "user:read"])
        planned = await client.post(f"{path}/enable", headers=ADMIN, params={"grant": "db", "dry_run": "true"})
        assert planned.json()["grants"]["granted"] == ["db:read"]
        assert planned.json()["plugin"]["grants"]["granted"] == []
        enabled = await client.post(f"{path}/enable", headers=ADMIN, params={"grant": ["db:read", "user:read"]})
        assert enabled.json()["plugin"]["state"] == "enabled"
        late = await client.put(
            f"{path}/grants", headers=ADMIN | {"If-Match": shown.headers["ETag"]}, json={"grant": ["none"]}
        )
        assert late.status_code == 412
        done = await client.put(
            f"{path}/grants", headers=ADMIN | {"If-Match": enabled.headers["ETag"]}, json={"grant": ["none"]}
        )
        assert done.json()["plugin"]["grants"]["granted"] == []
        assert done.json()["plugin"]["generation"] == 2
        assert (await client.put(f"{path}/grants", headers=ADMIN, json={"grant": ["x"]})).status_code == 409
        assert (await client.get(f"{AT}/base/grants", headers=ADMIN)).status_code == 409
        audit = (await client.get(f"{AT}/events", headers=ADMIN)).json()["audit"]
        assert [(each["by"], each["granted"]) for each in audit] == [
            ("admin 7", ["db:read", "user:read"]),
            ("admin 7", []),
        ]


# --- whose events -----------------------------------------------------------------------------------


async def test_a_stranger_declares_no_event_of_others(tmp_path: Path) -> None:
    """Not the host's, not a trusted plugin's, not that of a stranger that runs; the reason says who has it."""
    write_plugin(tmp_path / "plugins", "base", events=["base:done"])
    for plugin, event in (("aaa", "base:done"), ("bbb", "session:created"), ("quest", "quest:finished")):
        stranger(tmp_path, plugin, events=[event])
    async with hosted(tmp_path) as host:
        taken = {plugin: host.assert_state(plugin, PluginState.BLOCKED).reason for plugin in ("aaa", "bbb")}
        assert [error.fields["owner"] for error in taken.values() if error] == ["plugin 'base'", "the host"]
        host.assert_state("quest", PluginState.ENABLED)
        with pytest.raises(EventTakenError, match="'quest:finished', which plugin 'quest' declares already"):
            await host.manager.refresh(stranger(tmp_path, "copycat", events=["quest:finished"]))
        host.assert_state("quest", PluginState.ENABLED)
        await host.manager.disable("quest")
        await host.manager.enable("copycat")


# --- whose paths ------------------------------------------------------------------------------------

EVIL = """
from fastapi import APIRouter
router = APIRouter(prefix="/base")
@router.get("/evil")
def evil() -> str: return "evil"
"""


@pytest.mark.parametrize("name", ["aaa", "zzz"])
async def test_a_stranger_keeps_out_of_the_paths_of_others(tmp_path: Path, name: str) -> None:
    """Whoever is loaded first; a neighbour of the trusted plugin is served."""
    write_plugin(tmp_path / "plugins", "base", '@router.get("/hi")\ndef hi() -> str: return "hi"')
    stranger(tmp_path, name, EVIL)
    version(tmp_path, "1.0.0")
    async with hosted(tmp_path) as host:
        reason = host.assert_state(name, PluginState.FAILED).reason
        assert isinstance(reason, TrespassError)
        assert reason.fields["territory"] == "/api/v1/base"
        assert (await host.client.get("/api/v1/base/hi")).json() == "hi"
        assert (await host.client.get("/api/v1/base/evil")).status_code == 404
        assert await served(host) == "1.0.0"


@pytest.mark.parametrize(
    ("prefix", "path", "owned"),
    [
        ("/api/v1", "/admin/settings", "/api/v1/admin"),
        ("/api/v1", "/{part}/settings", "/api/v1/admin"),
        ("/api/v1/admin", "/quest", "/api/v1/admin"),
        ("/admin", "/login", "/admin"),
        ("/.well-known", "/openid-configuration", "/.well-known"),
    ],
)
async def test_what_is_taken_for_the_hosts_is_kept_free(tmp_path: Path, prefix: str, path: str, owned: str) -> None:
    """Also where nothing is served now; a trusted plugin may serve there."""
    code = f'from fastapi import APIRouter\nrouter = APIRouter()\n@router.get("{path}")\ndef page(): return "mine"'
    stranger(tmp_path, code=code, prefix=prefix)
    async with hosted(tmp_path) as host:
        reason = host.assert_state("quest", PluginState.FAILED).reason
        assert isinstance(reason, TrespassError)
        assert (reason.fields["territory"], reason.fields["owner"]) == (owned, "the host app")
    async with hosted(tmp_path, isolation={"quest": "in-process"}) as host:
        host.assert_state("quest", PluginState.ENABLED)


async def test_a_stranger_that_was_first_makes_room(tmp_path: Path) -> None:
    """When a trusted plugin starts later, or serves more than before, the stranger stops."""
    write_plugin(tmp_path / "plugins", "base", '@router.get("/hi")\ndef hi() -> str: return "hi"', enabled=False)
    stranger(tmp_path, "zzz", EVIL)
    async with hosted(tmp_path) as host:
        assert (await host.client.get("/api/v1/base/evil")).json() == "evil"
        await host.manager.enable("base")
        assert (await host.client.get("/api/v1/base/hi")).json() == "hi"
        assert (await host.client.get("/api/v1/base/evil")).status_code == 404
        host.assert_state("zzz", PluginState.FAILED)


async def test_new_code_of_a_trusted_plugin_takes_its_place(tmp_path: Path) -> None:
    """A stranger in the paths that it serves from now on does not hold it back."""
    write_plugin(tmp_path / "plugins", "base")
    stranger(tmp_path, "zzz", EVIL)
    async with hosted(tmp_path) as host:
        assert (await host.client.get("/api/v1/base/evil")).json() == "evil"
        write_plugin(tmp_path / "plugins", "base", '@router.get("/hi")\ndef hi() -> str: return "hi"')
        await host.manager.reload("base")
        assert (await host.client.get("/api/v1/base/hi")).json() == "hi"
        host.assert_state("zzz", PluginState.FAILED)
