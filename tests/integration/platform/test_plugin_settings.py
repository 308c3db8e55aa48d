"""Settings of plugins: where values come from, what is wrong with them, changing them live, and secrets."""

from __future__ import annotations

import json
import logging
import traceback
from pathlib import Path
from typing import Any

import pytest

from pixsim7_backend.db import Database
from pixsim7_backend.infrastructure.plugins import DesiredState, FileStateStore, PluginEvents, PluginState, plugin_hooks
from pixsim7_backend.infrastructure.plugins.errors import (
    MissingExportError,
    NoSettingsError,
    PluginHookError,
    PluginSettingsError,
    ReplacementRefusedError,
    SecretStorageError,
    StateConflictError,
)
from pixsim7_backend.infrastructure.plugins.testing import MemoryStateStore, PluginHost, plugin_host, write_plugin
from pixsim7_backend.plugin_store import DatabaseStateStore
from pixsim7_backend.settings_cipher import FernetCipher

pytestmark = pytest.mark.anyio

SHOP = """
from typing import Annotated
from pydantic import BaseModel, Field, SecretStr
from pixsim7_backend.infrastructure.plugins import plugin_settings

class Limits(BaseModel):
    per_day: int = 10
    names: list[str] = []

class settings_model(BaseModel):
    greeting: str = "hello"
    discount: Annotated[float, Field(ge=0, le=1)] = 0.1
    limits: Limits = Limits()
    api_key: SecretStr = SecretStr("")

def on_load(app):
    app.state.greeting_at_load = plugin_settings().greeting

@router.get("/")
def show():
    return plugin_settings().model_dump(mode="json")

@router.get("/key")
def show_key(settings: Annotated[settings_model, Depends(plugin_settings)]):
    return settings.api_key.get_secret_value()
"""

NEEDY = """
from pydantic import BaseModel, Field, SecretStr

class settings_model(BaseModel):
    endpoint: str = Field(examples=["https://example.org"])
    token: SecretStr
    retries: int = 3
"""

CIPHER = FernetCipher(lambda: "a secret of this test, at least 32 bytes")


async def shown(host: PluginHost, plugin: str = "shop") -> Any:
    """Return the settings as the plugin itself sees them."""
    return (await host.client.get(f"/api/v1/{plugin}/")).json()


def write_config(directory: Path, text: str) -> None:
    """Write the configuration file."""
    (directory / "config.yaml").write_text(text)


async def test_defaults_are_in_force_without_anything(tmp_path: Path) -> None:
    """A plugin reads its settings in hooks and requests, by call and as a dependency."""
    write_plugin(tmp_path, "shop", SHOP)
    async with plugin_host(tmp_path) as host:
        assert await shown(host) == {
            "greeting": "hello",
            "discount": 0.1,
            "limits": {"per_day": 10, "names": []},
            "api_key": "",
        }
        assert host.app.state.greeting_at_load == "hello"
        assert (await host.client.get("/api/v1/shop/key")).json() == ""


async def test_later_sources_lie_over_earlier_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Defaults, config.yaml, the environment, what is stored: each counts where the next says nothing."""
    monkeypatch.chdir(tmp_path)
    write_plugin(tmp_path / "plugins", "my-shop", SHOP)
    write_config(tmp_path, "plugins:\n  my_shop: {Greeting: file, discount: 0.2, limits: {per-day: 20, names: [file]}}")
    monkeypatch.setenv("PLUGIN_MY_SHOP__DISCOUNT", "0.3")
    monkeypatch.setenv("PLUGIN_MY_SHOP__LIMITS__NAMES", '["environment"]')
    monkeypatch.setenv("PLUGIN_MY_SHOP__API_KEY", "")
    store = MemoryStateStore(DesiredState(settings={"my-shop": {"discount": 0.4}}))
    async with plugin_host("plugins", store=store) as host:
        assert await shown(host, "my-shop") == {
            "greeting": "file",
            "discount": 0.4,
            "limits": {"per_day": 20, "names": ["environment"]},
            "api_key": "",
        }
        assert host.manager.view_settings("my-shop").sources == {
            "greeting": "config.yaml",
            "discount": "stored settings",
            "limits.per_day": "config.yaml",
            "limits.names": "environment variable PLUGIN_MY_SHOP__LIMITS__NAMES",
        }
        await host.manager.change_settings("my-shop", {"discount": None})
        assert (await shown(host, "my-shop"))["discount"] == 0.3


# --- what is wrong ----------------------------------------------------------------------------------


async def test_missing_settings_block_the_plugin_by_name(tmp_path: Path) -> None:
    """Each missing setting is named with the places to set it; what needs the plugin is blocked with it."""
    write_plugin(tmp_path, "needy", NEEDY)
    write_plugin(tmp_path, "user", dependencies=["needy"])
    async with plugin_host(tmp_path, cipher=CIPHER) as host:
        record = host.assert_state("needy", PluginState.BLOCKED)
        assert str(record.reason) == (
            "settings of plugin 'needy': endpoint: is missing; set PLUGIN_NEEDY__ENDPOINT=https://example.org, or"
            " `plugins: {needy: {endpoint: https://example.org}}` in config.yaml, or store it;"
            " token: is missing; set PLUGIN_NEEDY__TOKEN=secret, or `plugins: {needy: {token: secret}}` in config.yaml,"
            " or store it"
        )
        assert isinstance(record.reason, PluginSettingsError)
        assert record.reason.to_json()["settings"] == ["endpoint", "token"]
        host.assert_state("user", PluginState.BLOCKED)
        assert host.manager.settings_schema("needy")["required"] == ["endpoint", "token"]
        assert len(host.manager.view_settings("needy").problems) == 2
        await host.manager.change_settings("needy", {"endpoint": "https://one.example", "token": "t"})
        host.assert_state("needy", PluginState.ENABLED)
        host.assert_state("user", PluginState.ENABLED)
        assert host.manager.view_settings("needy").problems == ()


WRONG = {
    "environment": (
        {"PLUGIN_SHOP__DISCOUNT": "much"},
        {},
        "discount (environment variable PLUGIN_SHOP__DISCOUNT): input should be a valid number, unable to parse",
    ),
    "nested": (
        {"PLUGIN_SHOP__LIMITS__PER_DAY": "[]"},
        {},
        "limits.per_day (environment variable PLUGIN_SHOP__LIMITS__PER_DAY): input should be a valid integer",
    ),
    "beside stored": (
        {"PLUGIN_SHOP__LIMITS__PER_DAY": "many"},
        {"limits": {"names": ["x"]}},
        "limits.per_day (environment variable PLUGIN_SHOP__LIMITS__PER_DAY): input should be a valid integer",
    ),
    "stored": (
        {},
        {"discount": 7},
        "discount (stored settings): input should be less than or equal to 1; store discount = 0.1, or null to remove",
    ),
    "both": (
        {"PLUGIN_SHOP__DISCOUNT": "0.5"},
        {"discount": 7},
        "discount (stored settings): input should be less than or equal to 1",
    ),
}


@pytest.mark.parametrize(("environment", "stored", "problem"), WRONG.values(), ids=list(WRONG))
async def test_wrong_value_at_load_names_field_source_and_example(
    environment: dict[str, str],
    stored: dict[str, Any],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The plugin is blocked, not failed: its code did nothing wrong."""
    write_plugin(tmp_path, "shop", SHOP)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    store = MemoryStateStore(DesiredState(settings={"shop": stored}))
    async with plugin_host(tmp_path, store=store) as host:
        record = host.assert_state("shop", PluginState.BLOCKED)
        assert str(record.reason).startswith(f"settings of plugin 'shop': {problem}")


async def test_wrong_value_in_the_file_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example is a line of that file; a section that is no section is an error too."""
    monkeypatch.chdir(tmp_path)
    write_plugin(tmp_path / "plugins", "shop", SHOP)
    write_config(tmp_path, "plugins: {shop: {limits: {per_day: many}}}")
    async with plugin_host("plugins") as host:
        reason = str(host.assert_state("shop", PluginState.BLOCKED).reason)
        assert "limits.per_day (config.yaml): input should be a valid integer" in reason
        assert reason.endswith("write it like `plugins: {shop: {limits: {per_day: 10}}}`")
    write_config(tmp_path, "plugins: {shop: cheap}")
    async with plugin_host("plugins") as host:
        reason = str(host.assert_state("shop", PluginState.BLOCKED).reason)
        assert "plugins.shop (config.yaml): is 'cheap', not names with values" in reason


async def test_validator_that_raises_blocks_only_its_plugin(tmp_path: Path) -> None:
    """Validators are the plugin's code: whatever they raise is reported, nothing else suffers."""
    code = """
    from pydantic import BaseModel, model_validator
    class settings_model(BaseModel):
        @model_validator(mode="after")
        def check(self):
            raise RuntimeError("no luck")
    """
    write_plugin(tmp_path, "shop", code)
    write_plugin(tmp_path, "other")
    async with plugin_host(tmp_path) as host:
        reason = host.assert_state("shop", PluginState.BLOCKED).reason
        assert "validating them raised RuntimeError: no luck" in str(reason)
        host.assert_state("other", PluginState.ENABLED)


TALKATIVE = """
from pydantic import BaseModel, Field, SecretStr, field_validator
class settings_model(BaseModel):
    keys: list[SecretStr] = []
    either: int | list[int] = 1
    ratio: float = 1.0
    label: str = ""
    @field_validator("keys")
    @classmethod
    def check(cls, keys):
        for key in keys:
            raise ValueError(f"{key.get_secret_value()!r} is no key")
        return keys
"""


@pytest.mark.parametrize("raises", ["ValueError", "RuntimeError"])
async def test_secret_in_what_a_validator_raises_is_masked(
    raises: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The plugin's own text is kept but for the secret, at start and at a change; no traceback and no log has it."""
    write_plugin(tmp_path, "shop", TALKATIVE.replace("ValueError", raises))
    patch = {"keys": ["t0p-s3cret\n"]}
    async with plugin_host(tmp_path, cipher=CIPHER) as host:
        with pytest.raises(PluginSettingsError, match=r"'\*{10}' is no key") as caught:
            await host.manager.change_settings("shop", patch)
        assert "s3cret" not in "".join(traceback.format_exception(caught.value)) + str(caught.value.to_json())
    monkeypatch.setenv("PLUGIN_SHOP__KEYS", '["t0p-s3cret\\n"]')
    async with plugin_host(tmp_path, cipher=CIPHER) as host:
        assert "'**********' is no key" in str(host.assert_state("shop", PluginState.BLOCKED).reason)
    assert "s3cret" not in caplog.text


async def test_problem_names_a_place_in_the_document(tmp_path: Path) -> None:
    """The alternatives of a union are no part of where a value is written."""
    write_plugin(tmp_path, "shop", TALKATIVE)
    async with plugin_host(tmp_path) as host:
        with pytest.raises(PluginSettingsError) as caught:
            await host.manager.change_settings("shop", {"either": "many"})
        assert caught.value.fields["settings"] == ("either", "either")
        assert "store either = 1, or null to remove it" in str(caught.value)


def _nested(levels: int) -> Any:
    return [_nested(levels - 1)] if levels else 1


UNSTORABLE = {
    "NUL": ({"label": "a\0b"}, "text must not contain NUL characters"),
    "half a pair": ({"label": "\ud800"}, "text must not contain lone surrogates"),
    "name": ({"\0": 1}, "text must not contain NUL characters"),
    "infinite": ({"ratio": float("inf")}, "numbers must be finite"),
    "deep": ({"either": _nested(500)}, "JSON must not be nested deeper than 64 levels"),
    "long": ({"label": "x" * (1 << 20)}, "JSON must not be longer than 1048576 bytes"),
}


@pytest.mark.parametrize(("patch", "problem"), UNSTORABLE.values(), ids=list(UNSTORABLE))
@pytest.mark.parametrize("enabled", [True, False])
async def test_what_cannot_be_stored_is_refused(
    patch: dict[str, Any], problem: str, enabled: bool, tmp_path: Path
) -> None:
    """The same everywhere, whatever the store and whether the plugin's code is known."""
    write_plugin(tmp_path, "shop", TALKATIVE, enabled=enabled)
    async with plugin_host(tmp_path, cipher=CIPHER) as host:
        with pytest.raises(PluginSettingsError, match=problem):
            await host.manager.change_settings("shop", patch)


async def test_settings_model_must_be_a_model(tmp_path: Path) -> None:
    """Another export of that name fails the plugin, and so does one that JSON cannot describe."""
    write_plugin(tmp_path, "dict", "settings_model = {}")
    code = "from collections.abc import Callable\nfrom pydantic import BaseModel\n"
    write_plugin(tmp_path, "odd", f"{code}class settings_model(BaseModel):\n    f: Callable[[], int] = int")
    async with plugin_host(tmp_path) as host:
        reason = host.assert_state("dict", PluginState.FAILED).reason
        assert isinstance(reason, MissingExportError)
        assert "`settings_model` is a dict, not a class derived from pydantic.BaseModel" in str(reason)
        assert "without a JSON schema" in str(host.assert_state("odd", PluginState.FAILED).reason)


async def test_unknown_setting_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A misspelt variable does not stop the plugin, but the log says what was probably meant."""
    write_plugin(tmp_path, "shop", SHOP)
    monkeypatch.setenv("PLUGIN_SHOP__GREETNG", "hi")
    with caplog.at_level(logging.WARNING):
        async with plugin_host(tmp_path) as host:
            host.assert_state("shop", PluginState.ENABLED)
    assert (
        "Setting greetng of plugin 'shop' (environment variable PLUGIN_SHOP__GREETNG) is unknown;"
        " did you mean 'greeting'?"
    ) in caplog.text


async def test_value_that_json_cannot_carry_is_shown_as_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """YAML has dates and infinity: neither the view of what is in force nor that of what is wrong breaks on them."""
    monkeypatch.chdir(tmp_path)
    write_plugin(tmp_path / "plugins", "shop", TALKATIVE)
    write_config(tmp_path, "plugins: {shop: {ratio: .inf}}")
    async with plugin_host("plugins") as host:
        view = host.manager.view_settings("shop").to_json()
        assert json.loads(json.dumps(view, allow_nan=False))["values"]["ratio"] == "inf"
    write_config(tmp_path, "plugins: {shop: {ratio: 2030-01-31, keys: [.nan]}}")
    async with plugin_host("plugins") as host:
        host.assert_state("shop", PluginState.BLOCKED)
        view = host.manager.view_settings("shop").to_json()
        assert json.loads(json.dumps(view, allow_nan=False))["values"] == {
            "ratio": "2030-01-31",
            "keys": ["**********"],
        }


# --- changing -----------------------------------------------------------------------------------------


async def test_change_takes_effect_at_once_is_announced_and_lasts(tmp_path: Path) -> None:
    """The next request sees it, handlers hear of it after it took effect, and the next start has it."""
    write_plugin(tmp_path, "shop", SHOP)
    store = MemoryStateStore()
    heard: list[Any] = []
    async with plugin_host(tmp_path, store=store) as host:

        async def hear(plugin_id: str) -> None:
            heard.append((plugin_id, (await shown(host))["greeting"]))

        subscription = plugin_hooks.register(PluginEvents.PLUGIN_SETTINGS_CHANGED, hear)
        try:
            view = await host.manager.change_settings("shop", {"greeting": "hi", "limits": {"per_day": 3}})
        finally:
            subscription.cancel()
        assert heard == [("shop", "hi")]
        assert view.values["limits"] == {"per_day": 3, "names": []}
        assert host.record("shop").generation == 1
    assert store.state.settings == {"shop": {"greeting": "hi", "limits": {"per_day": 3}}}
    async with plugin_host(tmp_path, store=store) as host:
        assert (await shown(host))["greeting"] == "hi"
        assert host.app.state.greeting_at_load == "hi"


async def test_wrong_change_leaves_the_old_in_force(tmp_path: Path) -> None:
    """Nothing is stored, nothing announced, and the plugin goes on with what it had."""
    write_plugin(tmp_path, "shop", SHOP)
    store = MemoryStateStore()
    async with plugin_host(tmp_path, store=store) as host:
        await host.manager.change_settings("shop", {"discount": 0.5})
        for patch, problem in (
            ({"discount": 2}, "discount (stored settings): input should be less than or equal to 1"),
            ({"greting": "x"}, "greting: is not a setting of the plugin; did you mean 'greeting'?"),
            ({"limits": {"x": 1}}, "limits.x: is not a setting of the plugin; there are names, per_day"),
            ({"api_key": {"$encrypted": "x"}}, "all: '$encrypted' is the platform's own name"),
        ):
            with pytest.raises(PluginSettingsError) as caught:
                await host.manager.change_settings("shop", patch)
            assert f"settings of plugin 'shop': {problem}" in str(caught.value)
            with pytest.raises(PluginSettingsError):
                await host.manager.preview_settings("shop", patch)
        assert (await shown(host))["discount"] == 0.5
        host.assert_state("shop", PluginState.ENABLED)
    assert store.state.version == 1


async def test_change_can_be_looked_at_first(tmp_path: Path) -> None:
    """The preview says whether anything changes and whether the plugin would start; it changes nothing."""
    write_plugin(tmp_path, "shop", SHOP)
    write_plugin(tmp_path, "needy", NEEDY)
    store = MemoryStateStore()
    async with plugin_host(tmp_path, store=store, cipher=CIPHER) as host:
        change = await host.manager.preview_settings("shop", {"greeting": "hi"})
        assert change.to_json() == {"plugin": "shop", "is_empty": False, "starts": False}
        needed = await host.manager.preview_settings("needy", {"endpoint": "x", "token": "t0ken"})
        assert needed.starts
        assert "t0ken" not in repr(needed)
        assert (await host.manager.preview_settings("shop", {})).is_empty
        assert (await shown(host))["greeting"] == "hello"
    assert store.state.version == 0


async def test_change_that_changes_nothing_is_not_stored(tmp_path: Path) -> None:
    """An empty patch, and the removal of what is not stored, raise no version."""
    write_plugin(tmp_path, "shop", SHOP)
    store = MemoryStateStore()
    async with plugin_host(tmp_path, store=store) as host:
        before = host.manager.version_of("shop")
        await host.manager.change_settings("shop", {})
        await host.manager.change_settings("shop", {"greeting": None})
        assert host.manager.version_of("shop") == before
    assert store.state.version == 0


async def test_operator_who_is_late_gets_a_conflict(tmp_path: Path) -> None:
    """Two forms were opened at the same version: the second one to be sent is refused."""
    write_plugin(tmp_path, "shop", SHOP)
    async with plugin_host(tmp_path) as host:
        version = host.manager.version_of("shop")
        await host.manager.change_settings("shop", {"greeting": "first"}, expected_version=version)
        with pytest.raises(StateConflictError):
            await host.manager.change_settings("shop", {"greeting": "second"}, expected_version=version)
        assert (await shown(host))["greeting"] == "first"


async def test_plugin_without_settings_says_so(tmp_path: Path) -> None:
    """Neither looking nor changing is possible, and one that was removed has none any more."""
    write_plugin(tmp_path, "plain")
    write_plugin(tmp_path, "shop", SHOP)
    async with plugin_host(tmp_path) as host:
        await host.manager.withdraw("shop")
        for plugin, problem in (
            ("plain", "plugin 'plain' has no settings; it exports no `settings_model`"),
            ("shop", "plugin 'shop' is removed, so it has no settings any more"),
        ):
            with pytest.raises(NoSettingsError) as caught:
                host.manager.view_settings(plugin)
            assert str(caught.value) == problem
            with pytest.raises(NoSettingsError):
                await host.manager.change_settings(plugin, {"greeting": "x"})


async def test_plugin_that_was_switched_off_is_configured_by_its_model(tmp_path: Path) -> None:
    """Its code is still in memory: wrong values are refused at once, right ones are in force when it is back."""
    write_plugin(tmp_path, "shop", SHOP)
    async with plugin_host(tmp_path) as host:
        await host.manager.disable("shop")
        with pytest.raises(PluginSettingsError):
            await host.manager.change_settings("shop", {"discount": 2})
        await host.manager.change_settings("shop", {"greeting": "back"})
        await host.manager.enable("shop")
        assert (await shown(host))["greeting"] == "back"


async def test_settings_of_a_plugin_that_was_never_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows what is secret: all is masked and stored encrypted; it is in force once the plugin is enabled."""
    monkeypatch.chdir(tmp_path)
    write_plugin(tmp_path / "plugins", "shop", SHOP, enabled=False)
    write_config(tmp_path, "plugins: {shop: {limits: {per_day: 20, names: [file]}}}")
    monkeypatch.setenv("PLUGIN_SHOP__API_KEY", "t0p-s3cret")
    store = FileStateStore(tmp_path / "state.json")
    async with plugin_host("plugins", store=store, cipher=CIPHER) as host:
        await host.manager.change_settings("shop", {"greeting": "hi", "discount": 0.5, "limits": {"names": ["a"]}})
        await host.manager.change_settings("shop", {"greeting": "**********", "discount": None})
        view = host.manager.view_settings("shop")
        host.assert_state("shop", PluginState.DISABLED)
        assert view.values == {
            "limits": {"per_day": "**********", "names": "**********"},
            "api_key": "**********",
            "greeting": "**********",
        }
        assert view.sources == {
            "limits.per_day": "config.yaml",
            "limits.names": "stored settings",
            "api_key": "environment variable PLUGIN_SHOP__API_KEY",
            "greeting": "stored settings",
        }
        assert list(view.problems) == [
            (
                "the plugin is disabled, and its code, which says what can be set, is not imported: values are masked,"
                " and are checked when it is enabled"
            )
        ]
        assert '"hi"' not in store.file.read_text()
        await host.manager.enable("shop")
        assert await shown(host) == {
            "greeting": "hi",
            "discount": 0.1,
            "limits": {"per_day": 20, "names": ["a"]},
            "api_key": "**********",
        }
        assert host.manager.view_settings("shop").values["greeting"] == "hi"


async def test_wrong_value_for_a_plugin_that_was_never_imported_holds_it_back(tmp_path: Path) -> None:
    """Enabling names the value and where it is; setting it right starts the plugin, also over a value sealed whole."""
    write_plugin(tmp_path, "shop", SHOP, enabled=False)
    store = MemoryStateStore()
    async with plugin_host(tmp_path, store=store, cipher=CIPHER) as host:
        await host.manager.change_settings("shop", {"limits": ["few"], "greetng": "x", "discount": 0.5})
        with pytest.raises(
            PluginSettingsError, match=r"limits \(stored settings\): input should be a valid dictionary"
        ):
            await host.manager.enable("shop")
        host.assert_state("shop", PluginState.BLOCKED)
        hidden = dict.fromkeys(("limits", "greetng", "discount"), "**********")
        assert host.manager.view_settings("shop").values == hidden
        await host.manager.change_settings("shop", {"limits": {"per_day": 3}, "greeting": "hi"})
        host.assert_state("shop", PluginState.ENABLED)
        assert (await shown(host))["limits"] == {"per_day": 3, "names": []}
    assert store.state.settings["shop"]["limits"] == {"per_day": 3}


async def test_without_a_cipher_a_plugin_that_was_never_imported_is_not_configured(tmp_path: Path) -> None:
    """What may be a secret is not stored in clear; the refusal says where it can be set."""
    write_plugin(tmp_path, "shop", SHOP, enabled=False)
    async with plugin_host(tmp_path) as host:
        with pytest.raises(SecretStorageError, match="set PLUGIN_SHOP__GREETING in the environment instead"):
            await host.manager.change_settings("shop", {"greeting": "hi"})
        assert host.manager.view_settings("shop").values == {}


async def test_plugin_that_fails_with_its_new_settings_says_why(tmp_path: Path) -> None:
    """Valid settings are stored although starting with them fails; the record and the caller get the reason."""
    write_plugin(tmp_path, "needy", f"{NEEDY}\ndef on_enable(): raise ConnectionError('refused')")
    store = MemoryStateStore()
    async with plugin_host(tmp_path, store=store, cipher=CIPHER) as host:
        with pytest.raises(PluginHookError, match="refused"):
            await host.manager.change_settings("needy", {"endpoint": "x", "token": "t"})
        host.assert_state("needy", PluginState.FAILED)
    assert store.state.settings["needy"]["endpoint"] == "x"


# --- beside other things --------------------------------------------------------------------------------


async def test_function_that_others_call_asks_by_model(tmp_path: Path) -> None:
    """Called by another plugin, `plugin_settings()` is the caller's; `plugin_settings.of` is the model's."""
    code = SHOP + "\ndef price():\n    return plugin_settings.of(settings_model).greeting\n"
    write_plugin(tmp_path, "shop", code)
    (tmp_path / "shop" / "__init__.py").write_text("from .manifest import manifest, router, price\n")
    caller = """
    from pydantic import BaseModel
    from pixsim7_backend.infrastructure.plugins import plugin_settings
    from ..shop import price
    class settings_model(BaseModel):
        own: int = 7
    @router.get("/")
    def both():
        return [plugin_settings().own, price()]
    """
    write_plugin(tmp_path, "buyer", caller, dependencies=["shop"])
    async with plugin_host(tmp_path) as host:
        assert await shown(host, "buyer") == [7, "hello"]
        await host.manager.change_settings("shop", {"greeting": "hi"})
        await host.manager.reload("shop")
        assert await shown(host, "buyer") == [7, "hi"]


async def test_reload_brings_the_new_model(tmp_path: Path) -> None:
    """The new generation is validated with its own model before it serves; if that fails, the old one goes on."""
    write_plugin(tmp_path, "shop", SHOP)
    async with plugin_host(tmp_path) as host:
        await host.manager.change_settings("shop", {"greeting": "hi"})
        write_plugin(
            tmp_path, "shop", SHOP.replace('greeting: str = "hello"', 'greeting: str = "hello"\n    more: int')
        )
        with pytest.raises((PluginSettingsError, ReplacementRefusedError), match="more: is missing"):
            await host.manager.reload("shop")
        assert (await shown(host))["greeting"] == "hi"
        assert host.manager.view_settings("shop").problems == ()
        write_plugin(tmp_path, "shop", SHOP.replace('greeting: str = "hello"', 'greeting: str = ""\n    more: int = 4'))
        await host.manager.reload("shop")
        assert (await shown(host))["more"] == 4
        assert (await shown(host))["greeting"] == "hi"
        await host.manager.settle()
        assert len(host.manager._key.settings) == 1


async def test_settings_cannot_be_asked_for_too_early_or_elsewhere(tmp_path: Path) -> None:
    """While importing they are not known yet; in host code there are none. Both errors say what to do."""
    from pixsim7_backend.infrastructure.plugins import plugin_settings

    code = "from pixsim7_backend.infrastructure.plugins import plugin_settings\nplugin_settings()\n"
    write_plugin(tmp_path, "early", code)
    async with plugin_host(tmp_path) as host:
        reason = str(host.assert_state("early", PluginState.FAILED).reason)
        assert "ask from on_load on, not while importing" in reason
    with pytest.raises(NoSettingsError, match="call plugin_settings\\(\\) in a plugin's code"):
        plugin_settings()


# --- secrets ----------------------------------------------------------------------------------------------


async def test_secret_is_never_shown_nor_stored_in_clear(tmp_path: Path) -> None:
    """The plugin reads it; the file, the view, errors and events do not contain it; it survives a restart."""
    write_plugin(tmp_path / "plugins", "shop", SHOP)
    store = FileStateStore(tmp_path / "state.json")
    async with plugin_host(tmp_path / "plugins", store=store, cipher=CIPHER) as host:
        view = await host.manager.change_settings("shop", {"api_key": "t0p-s3cret"})
        assert view.values["api_key"] == "**********"
        assert "t0p-s3cret" not in json.dumps(view.to_json())
        assert (await host.client.get("/api/v1/shop/key")).json() == "t0p-s3cret"
        with pytest.raises(PluginSettingsError) as caught:
            await host.manager.change_settings("shop", {"api_key": ["t0p-s3cret"]})
        assert "t0p-s3cret" not in str(caught.value.to_json())
    assert "t0p-s3cret" not in store.file.read_text()
    async with plugin_host(tmp_path / "plugins", store=store, cipher=CIPHER) as host:
        assert (await host.client.get("/api/v1/shop/key")).json() == "t0p-s3cret"
        await host.manager.change_settings("shop", {"api_key": "**********", "greeting": "same"})
        assert (await host.client.get("/api/v1/shop/key")).json() == "t0p-s3cret"


async def test_secret_in_the_database_cannot_be_read(tmp_path: Path, database: Database) -> None:
    """No row of the store has it; another start with the same key has."""
    write_plugin(tmp_path / "plugins", "shop", SHOP)
    store = DatabaseStateStore(database, migrates=True)
    async with plugin_host(tmp_path / "plugins", store=store, cipher=CIPHER) as host:
        await host.manager.change_settings("shop", {"api_key": "t0p-s3cret", "greeting": "hi"})
    kept = json.dumps(dict(store.load().settings["shop"]))
    assert '"greeting": "hi"' in kept
    assert "t0p-s3cret" not in kept
    async with plugin_host(tmp_path / "plugins", store=store, cipher=CIPHER) as host:
        assert (await host.client.get("/api/v1/shop/key")).json() == "t0p-s3cret"


async def test_without_a_cipher_secrets_are_not_stored(tmp_path: Path) -> None:
    """The refusal names the field and the way out; other settings can be stored."""
    write_plugin(tmp_path, "shop", SHOP)
    store = MemoryStateStore()
    async with plugin_host(tmp_path, store=store) as host:
        with pytest.raises(SecretStorageError) as caught:
            await host.manager.change_settings("shop", {"api_key": "x"})
        assert str(caught.value) == (
            "secret 'api_key' of plugin 'shop': there is no cipher, and secrets are never stored in clear;"
            " set PLUGIN_SHOP__API_KEY in the environment instead, or pass `cipher=` to init_plugin_manager"
        )
        await host.manager.change_settings("shop", {"greeting": "hi"})
    assert store.state.settings == {"shop": {"greeting": "hi"}}


async def test_secret_of_a_lost_key_blocks_until_it_is_set_anew(tmp_path: Path) -> None:
    """After the key has changed the plugin is blocked by name of the secret; setting it again mends it."""
    write_plugin(tmp_path, "shop", SHOP)
    store = MemoryStateStore()
    async with plugin_host(tmp_path, store=store, cipher=CIPHER) as host:
        await host.manager.change_settings("shop", {"api_key": "old"})
    other = FernetCipher(lambda: "another secret, of which nobody knew before")
    async with plugin_host(tmp_path, store=store, cipher=other) as host:
        reason = host.assert_state("shop", PluginState.BLOCKED).reason
        assert str(reason) == (
            "secret 'api_key' of plugin 'shop': what is stored cannot be decrypted (it was encrypted with another key);"
            " bring back the former SECRET_KEY (or key file), or set the secret anew"
        )
        view = host.manager.view_settings("shop")
        assert (view.values, view.problems) == ({"api_key": "**********"}, (str(reason),))
        await host.manager.change_settings("shop", {"api_key": "new"})
        assert (await host.client.get("/api/v1/shop/key")).json() == "new"
