"""Whose code is running: one context variable, set at every entry point into a plugin."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from .leaks import Remains
from .ledger import Ledger


class Entry(StrEnum):
    """The way by which control came into the plugin."""

    HOST = "host"
    REQUEST = "request"
    HOOK = "hook"
    EVENT = "event"
    LIFESPAN = "lifespan"
    TASK = "task"


@dataclass(slots=True, eq=False)
class SettingsCell:
    """The settings in force of one generation; None where it has no settings."""

    current: Any = None


@dataclass(slots=True, eq=False)
class AppKey:
    """Stands for one app wherever things are told apart by app.

    ``loop`` is the one it serves on; ``ports`` is what its plugins provide to one another, each with its provider;
    ``settings`` are those in force, by the model that they are of; ``remains`` watches code that was given up.
    """

    name: str = "app"
    loop: asyncio.AbstractEventLoop | None = None
    ports: dict[str, tuple[Owner | None, Any]] = field(default_factory=dict)
    settings: dict[type, SettingsCell] = field(default_factory=dict)
    remains: Remains = field(default_factory=Remains)


@dataclass(frozen=True, slots=True, eq=False)
class Owner:
    """One generation of one plugin in one app; compared by identity.

    ``app`` is the key of the app; ``package`` and ``directory`` tell the plugin's own code;
    ``ledger`` takes everything that its code registers.
    """

    app: AppKey
    plugin: str
    generation: int
    package: str
    directory: str
    ledger: Ledger = field(default_factory=Ledger)
    settings: SettingsCell = field(default_factory=SettingsCell)


@dataclass(frozen=True, slots=True, eq=False)
class Running:
    """What runs now: an app's host code (``owner`` None) or one of its plugins, and how it was entered.

    Entry points build theirs once and only store it: ``token = running.set(it) … running.reset(token)``.
    """

    app: AppKey | None
    owner: Owner | None
    entry: Entry


running: ContextVar[Running | None] = ContextVar("pixsim7_running", default=None)


def current_owner() -> Owner | None:
    """Return the plugin generation whose code runs, None in host code."""
    now = running.get()
    return now.owner if now else None


def current_app() -> AppKey | None:
    """Return the key of the app whose code runs, None outside every app."""
    now = running.get()
    return now.app if now else None


@contextmanager
def running_as(owner: Owner, entry: Entry) -> Iterator[None]:
    """Attribute everything inside to ``owner``; reset on every path."""
    token = running.set(Running(owner.app, owner, entry))
    try:
        yield
    finally:
        running.reset(token)


@contextmanager
def running_as_host(app: AppKey | None = None) -> Iterator[None]:
    """Clear the owner, for the host's own work and for what several plugins share (a client, a pool)."""
    token = running.set(Running(app if app is not None else current_app(), None, Entry.HOST))
    try:
        yield
    finally:
        running.reset(token)
