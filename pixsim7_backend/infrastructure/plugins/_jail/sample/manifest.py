"""Uses what most plugins use, so that it is imported, built and remembered once for all of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Query
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
    weight: float | None = None
    kind: Literal["plain", "odd"] = "plain"
    tags: list[str] = []
    more: dict[str, Any] = {}
    made: datetime | None = None


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


@router.get("/things/{number}")
async def read(
    number: Annotated[int, Path(ge=0)],
    q: str = "",
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    is_odd: bool = False,
    share: float | None = None,
) -> dict[str, object]:
    """Answer with what is no model."""
    return {"number": number, "q": q, "limit": limit, "is_odd": is_odd, "share": share}


@router.get("/things", response_model=list[Item])
async def read_all(since: datetime | None = None, kind: list[str] | None = None) -> list[dict[str, Any]]:
    """Answer with models made of what is none."""
    return [{"name": "first", "made": since, "tags": kind or []}]
