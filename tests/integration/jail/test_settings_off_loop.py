"""No jail is asked about settings on the event loop, which serves everybody meanwhile."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pixsim7_backend.infrastructure.plugins import PluginState
from pixsim7_backend.infrastructure.plugins._jail import loading
from pixsim7_backend.infrastructure.plugins._jail.handshake import greet
from pixsim7_backend.infrastructure.plugins.errors import PluginSettingsError, StateConflictError
from pixsim7_backend.infrastructure.plugins.testing import MemoryStateStore, write_plugin

from .conftest import PATIENT, Serve

pytestmark = pytest.mark.anyio

CODE = """
from pydantic import BaseModel, Field
from pixsim7_backend.infrastructure.plugins import plugin_settings

class settings_model(BaseModel):
    discount: float = Field(0.1, le=1)

@router.get("/")
def show():
    return plugin_settings().discount
"""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """What processes that are not in service are asked, and whether an event loop stands still for that."""
    seen: list[tuple[str, bool]] = []

    def watched(*args: Any, **options: Any) -> Any:
        try:
            is_on_loop = asyncio.get_running_loop() is not None
        except RuntimeError:
            is_on_loop = False
        seen.append((options["question"][0], is_on_loop))
        return greet(*args, **options)

    monkeypatch.setattr(loading, "greet", watched)
    return seen


def set_elsewhere(store: MemoryStateStore, discount: float) -> None:
    """Store a setting as another process does."""
    state = replace(store.state, settings={"shop": {"discount": discount}})
    store.save(state, expected_version=store.state.version)


@pytest.mark.parametrize("is_lazy", [False, True])
async def test_what_another_process_has_set_is_judged_aside(
    confined: Serve, open_dir: Path, asked: list[tuple[str, bool]], *, is_lazy: bool
) -> None:
    """A plugin that is off is enabled with settings that its jail has not seen: they count, and nobody waits."""
    write_plugin(open_dir, "shop", CODE)
    store = MemoryStateStore()
    jails = {"supervision": replace(PATIENT, is_lazy=is_lazy)}
    async with confined(store=store, jails=jails) as server, server.client() as client:
        manager = server.manager
        await manager.disable("shop")
        set_elsewhere(store, 0.5)
        with pytest.raises(StateConflictError):
            await manager.enable("shop")
        asked.clear()
        await manager.enable("shop")
        assert (await client.get("/api/v1/shop/")).json() == 0.5
        assert "validate" in dict(asked)
        assert not any(is_on_loop for _, is_on_loop in asked)


async def test_what_another_process_has_set_wrongly_holds_it_back(
    confined: Serve, open_dir: Path, asked: list[tuple[str, bool]]
) -> None:
    """It is blocked and says why, as ever; set right it starts."""
    write_plugin(open_dir, "shop", CODE)
    store = MemoryStateStore()
    async with confined(store=store) as server, server.client() as client:
        manager = server.manager
        await manager.disable("shop")
        set_elsewhere(store, 2)
        with pytest.raises(StateConflictError):
            await manager.enable("shop")
        asked.clear()
        with pytest.raises(PluginSettingsError, match="less than or equal to 1"):
            await manager.enable("shop")
        assert manager.get("shop").state is PluginState.BLOCKED
        assert manager.view_settings("shop").problems
        await manager.change_settings("shop", {"discount": 0.2})
        assert (await client.get("/api/v1/shop/")).json() == 0.2
        assert not any(is_on_loop for _, is_on_loop in asked)
