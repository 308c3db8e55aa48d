"""Settings of one folder, run in process and confined: operators cannot tell which, whatever the jail says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from pixsim7_backend.infrastructure.plugins import PluginState
from pixsim7_backend.infrastructure.plugins.admin import admin_router
from pixsim7_backend.infrastructure.plugins.errors import JailedPluginError, PluginSettingsError
from pixsim7_backend.infrastructure.plugins.testing import MemoryStateStore, write_plugin
from pixsim7_backend.settings_cipher import FernetCipher
from tests.integration.platform.live import LiveServer

from .conftest import PATIENT, Serve

pytestmark = pytest.mark.anyio

CIPHER = FernetCipher(lambda: "a secret of this test, at least 32 bytes")
CODE = """
from datetime import date
from typing import Annotated
from pydantic import BaseModel, Field, SecretStr, field_validator
from pixsim7_backend.infrastructure.plugins import plugin_settings

class Limits(BaseModel):
    per_day: int = 10
    names: list[str] = []

class settings_model(BaseModel):
    '''What a shop can be told.'''
    greeting: str = Field("hello", description="What it says")
    discount: Annotated[float, Field(ge=0, le=1)] = 0.1
    opened: date = date(2026, 1, 1)
    limits: Limits = Limits()
    api_key: SecretStr = SecretStr("")

    @field_validator("greeting")
    @classmethod
    def check(cls, greeting):
        if greeting == "boom":
            raise RuntimeError("no luck")
        if greeting == "rude":
            raise ValueError("be polite")
        return greeting

    @field_validator("api_key")
    @classmethod
    def check_key(cls, key):
        if key.get_secret_value().startswith("bad"):
            raise ValueError(f"{key.get_secret_value()} is no key")
        return key

heard = []
came = asyncio.Event()
at_load = []

def on_load(app):
    at_load.append(plugin_settings().greeting)

async def hear(plugin_id):
    heard.append(plugin_id)
    if len(heard) == 3:
        came.set()

async def on_enable():
    plugin_hooks.register("plugin:settings_changed", hear)

@router.get("/")
def show():
    return {**plugin_settings().model_dump(mode="json"), "key": plugin_settings().api_key.get_secret_value(),
            "at_load": at_load[-1:]}

@router.get("/heard")
async def list_heard():
    await asyncio.wait_for(came.wait(), 20)
    return heard
"""
CONFIG = "plugins:\n  shop: {Greeting: file, opened: 2026-07-01, limits: {per-day: 20, names: [file]}}"
PATCHES: list[dict[str, Any]] = [
    {"discount": 2, "limits": {"per_day": "many"}},
    {"limits": {"nmes": []}, "greting": "x"},
    {"greeting": "rude"},
    {"greeting": "boom"},
    {"greeting": "a\u0000b"},
    {"api_key": ["t0p-s3cret"]},
    {"api_key": "bad-s3cret"},
    {"greeting": "hi", "api_key": "t0p-s3cret", "limits": {"names": ["a", "b"]}},
    {"greeting": None, "discount": 0.5, "api_key": "**********"},
    {"greeting": "again"},
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration file, and an environment."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLUGIN_SHOP__LIMITS__NAMES", '["environment"]')


async def operate(server: LiveServer, client: httpx.AsyncClient) -> list[Any]:
    """Look, change and misspell settings over the admin API; return everything that came of it."""
    server.app.include_router(admin_router(guard=lambda: None))
    url, seen = "/admin/plugins/shop/settings", list[Any]()

    async def note(answer: httpx.Response) -> None:
        body = answer.json()
        for view in (body, body.get("settings") or {}):
            view.pop("record_version", None)
        seen.append([answer.status_code, body, (await client.get("/api/v1/shop/")).json()])

    await note(await client.get(url))
    if server.manager.get("other").source.is_confined:  # of others it hears nothing
        await server.manager.change_settings("other", {"greeting": "hi"})
    for patch in PATCHES:
        await note(await client.patch(url, params={"dry_run": True}, json=patch))
        await note(await client.patch(url, json=patch))
    seen.append((await client.get("/api/v1/shop/heard")).json())
    assert set(seen[-1]) == {"shop"}
    await server.manager.disable("shop")
    for patch in ({"discount": 7}, {"discount": 0.7}):
        answer = await client.patch(url, json=patch)
        seen.append([answer.status_code, answer.json().get("detail")])
    await server.manager.enable("shop")
    await note(await client.get(url))
    return seen


async def test_operators_cannot_tell_which(
    confined: Serve, in_process: Serve, open_dir: Path, place: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Schema, sources, masked secrets, refusals, what the plugin then sees and hears: all of it is the same."""
    write_plugin(open_dir, "shop", CODE)
    write_plugin(open_dir, "other", CODE)
    stored, seen = list[Any](), list[Any]()
    for serve in (in_process, confined):
        store = MemoryStateStore()
        async with serve(store=store, cipher=CIPHER) as server, server.client() as client:
            assert server.manager.get("shop").source.is_confined is (serve is confined)
            seen.append(await operate(server, client))
            stored.append(store.state.settings["shop"])
    for here, there in zip(*seen, strict=True):
        assert there == here
    looked, *_, last = seen[1]
    assert (looked[1]["sources"]["limits.names"], looked[2]["at_load"]) == (
        "environment variable PLUGIN_SHOP__LIMITS__NAMES",
        ["file"],
    )
    assert (last[1]["values"]["api_key"], last[2]["key"], last[2]["discount"]) == ("**********", "t0p-s3cret", 0.7)
    assert "bad-s3cret" not in str(seen)
    assert "********** is no key" in str(seen)
    assert stored[1]["api_key"].keys() == stored[0]["api_key"].keys() == {"$encrypted"}


async def test_wrong_settings_hold_a_confined_plugin_back(
    confined: Serve, in_process: Serve, open_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is blocked with the same reason, shows what can be set, and starts when that is set right."""
    write_plugin(open_dir, "shop", CODE)
    monkeypatch.setenv("PLUGIN_SHOP__DISCOUNT", "much")
    reasons, views = [], []
    for serve in (in_process, confined):
        async with serve(cipher=CIPHER) as server, server.client() as client:
            manager, record = server.manager, server.manager.get("shop")
            assert record.state is PluginState.BLOCKED
            reasons.append(str(record.reason))
            views.append(manager.view_settings("shop").to_json())
            with pytest.raises(Exception, match="input should be less than or equal to 1"):
                await manager.change_settings("shop", {"discount": 2})
            await manager.change_settings("shop", {"discount": 0.2})
            assert (await client.get("/api/v1/shop/")).json()["discount"] == 0.2
    assert reasons[0] == reasons[1]
    assert views[0] == views[1]


async def test_settings_in_force_survive_a_crash(confined: Serve, open_dir: Path) -> None:
    """The process that is started again has what was set last; a reload keeps it, too."""
    write_plugin(open_dir, "shop", f"import os\n{CODE}\n@router.get('/die')\ndef die(): os._exit(7)\n")
    async with confined(cipher=CIPHER) as server, server.client() as client:
        await server.manager.change_settings("shop", {"greeting": "hi", "api_key": "t0p-s3cret"})
        assert (await client.get("/api/v1/shop/die")).status_code == 502
        for _ in range(2):
            shown = (await client.get("/api/v1/shop/")).json()
            assert (shown["greeting"], shown["key"], shown["at_load"]) == ("hi", "t0p-s3cret", ["hi"])
            await server.manager.reload("shop")


async def test_settings_of_what_does_not_run_yet(confined: Serve, open_dir: Path) -> None:
    """One that waits for a decision is not run to know what can be set; one that nobody needs is started for it."""
    write_plugin(open_dir, "shop", CODE, permissions=["db:own"])
    lazy, store = replace(PATIENT, is_lazy=True), MemoryStateStore()
    async with confined(cipher=CIPHER, store=store, jails={"supervision": lazy}) as server, server.client() as client:
        manager = server.manager
        assert manager.get("shop").state is PluginState.BLOCKED
        await manager.change_settings("shop", {"greeting": "hi", "discount": 0.2})
        assert store.state.settings["shop"]["greeting"].keys() == {"$encrypted"}
        view = manager.view_settings("shop")
        assert (view.schema, view.values) == ({}, {"greeting": "**********", "discount": "**********"})
        await manager.enable("shop", grant=["none"])
        figures = manager.metrics.of("shop").confined
        assert figures is not None
        assert (figures.phase, figures.starts) == ("idle", 0)
        assert manager.view_settings("shop").values["greeting"] == "hi"
        with pytest.raises(PluginSettingsError):
            await manager.change_settings("shop", {"discount": 2})
        await manager.change_settings("shop", {"discount": 0.3})
        shown = (await client.get("/api/v1/shop/")).json()
        assert (shown["greeting"], shown["discount"], shown["at_load"]) == ("hi", 0.3, ["hi"])


HOSTILE = """
import time
from pydantic import BaseModel
from pixsim7_backend.infrastructure.plugins._settings.form import ModelForm, RefusedSettingsError, SettingFault

class settings_model(BaseModel):
    level: int = 1

class Schema:
    def __init__(self, told):
        self.json = told

def refuse(*fault):
    def validate(self, values):
        if values:
            raise RefusedSettingsError([SettingFault(*fault)])
        return settings_model()
    return validate

def hang(self, values):
    while values:
        time.sleep(0.01)
    return settings_model()
"""
UNLOADABLE = {
    "huge": (
        "ModelForm.schema = Schema({'description': 'x' * 10_000_000})",
        "a frame of kind ANSWER has 10,000,",
    ),
    "broken": ("ModelForm.schema = Schema({'properties': 7})", "has 'properties' where that cannot be"),
    "elsewhere": ("ModelForm.schema = Schema({'$ref': 'https://evil.example'})", "a reference of the schema"),
    "mute": ("ModelForm.dump = lambda *_: 7", "is no object"),
}
ASKED = {
    "rude": (
        "ModelForm.validate = refuse('x', ['level', '\\x1b[2J'], 'no\\x1b[31m\\nway <script>')",
        PluginSettingsError,
        "plugin 'rude': level (stored settings): no [31m way <script>; store level = 1, or null to remove it",
    ),
    "vague": (
        "ModelForm.validate = refuse('x', ['a'] * 50, 'no')",
        JailedPluginError,
        "could not validate settings in its jail: a reason for which it refuses settings is none",
    ),
    "stuck": ("ModelForm.validate = hang", JailedPluginError, "could not validate settings in its jail"),
}


async def test_what_a_jail_says_of_its_settings_is_not_believed(confined: Serve, open_dir: Path) -> None:
    """Schemas that are none hold the plugin back; wrong verdicts are errors in plain text, and nothing is stored."""
    for name, (code, _) in UNLOADABLE.items():
        write_plugin(open_dir, name, f"{HOSTILE}\n{code}\n")
    for name, (code, _, _) in ASKED.items():
        write_plugin(open_dir, name, f"{HOSTILE}\n{code}\n")
    store = MemoryStateStore()
    patient = replace(PATIENT, heartbeat=0.2, missed_heartbeats=3)
    async with confined(store=store, jails={"supervision": patient}) as server:
        manager = server.manager
        for name, (_, problem) in UNLOADABLE.items():
            assert problem in str(manager.get(name).reason), name
        for name, (_, kind, problem) in ASKED.items():
            with pytest.raises(kind) as caught:
                await manager.change_settings(name, {"level": 2})
            assert problem in str(caught.value)
            assert str(caught.value).isprintable()
            assert manager.view_settings(name).values == {"level": 1}
            assert manager.get(name).state is PluginState.ENABLED
    assert store.state.settings == {}
