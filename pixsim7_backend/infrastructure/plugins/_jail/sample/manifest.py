"""Uses what most plugins use, so that it is imported, built and remembered once for all of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, HTTPException
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, SecretStr

from pixsim7_backend.infrastructure.plugins import plugin_hooks, plugin_settings
from pixsim7_backend.infrastructure.plugins.types import PluginManifest

manifest = PluginManifest(
    id="sample",
    name="Sample",
    version="1.0.0",
    description="Runs once, so that other plugins start sooner",
)

router = APIRouter(prefix="/sample", tags=["sample"])


class Settings(BaseModel):
    """What can be set."""

    most: int = Field(default=10, ge=1)
    names: list[str] = []
    key: SecretStr = SecretStr("")


settings_model = Settings


class Item(BaseModel):
    """A body, and an answer."""

    name: str = Field(min_length=1)
    size: int = 1


async def on_enable() -> None:
    """Listen, as plugins do."""
    plugin_hooks.register("sample:asked", lambda: None)


async def limit(settings: Annotated[Settings, Depends(plugin_settings)], most: int = 10) -> int:
    """Return a parameter, as far as it may go."""
    return min(most, settings.most)


@router.post("/items/{number}")
async def make(
    number: int, item: Item, most: Annotated[int, Depends(limit)], accept: Annotated[str, Header()] = ""
) -> Item:
    """Answer with a model."""
    if number > most or not accept:
        raise HTTPException(422)
    return item


@router.get("/plain")
async def plain() -> JSONResponse:
    """Answer without one."""
    return JSONResponse({})
