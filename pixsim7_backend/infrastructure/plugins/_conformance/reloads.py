"""Replacing a plugin again and again: does it go on serving, does the old code die, does memory stay flat."""

from __future__ import annotations

import asyncio
import gc
import itertools
import tracemalloc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import ModuleType

from pixsim7_backend.infrastructure.plugins import PluginError
from pixsim7_backend.infrastructure.plugins._leaks import find_keeper

from .trials import Trial
from .verdicts import Finding, warning

_WARM_UP = 3
"""Reloads before memory is measured: by then every cache has been filled once."""
_ENOUGH = 8
"""Measured reloads from which on the average says something: caches fill and empty meanwhile."""
_GROWTH = 50_000
"""Bytes a reload may leave behind before that is worth a warning; the code of a small plugin takes 100,000."""


@dataclass(slots=True)
class Reloads:
    """What came of replacing a plugin many times."""

    findings: list[Finding] = field(default_factory=list)
    leaks: list[Finding] = field(default_factory=list)
    done: int = 0
    growth: int | None = None
    """Bytes that a reload left behind on average; None where there were too few to tell."""

    @property
    def growth_note(self) -> str:
        return "" if self.growth is None else f"{self.growth:,} bytes a reload"


async def replace_again(trial: Trial, times: int) -> Reloads:
    """Replace the plugin ``times`` times while its paths are asked; stop at the first that fails."""
    came, dying = Reloads(), list[_Module]()
    async with _asking(trial, came.findings):
        measured = 0
        for number in range(times):
            if number in (_WARM_UP, _WARM_UP + 1):
                measured = await _measure(trial)
            dying += _modules(trial)
            try:
                await trial.manager.reload(trial.plugin)
            except PluginError as error:
                way = "reload must find everything that a first start finds"
                came.findings.append(Finding(what=f"reload {number + 1} failed: {error}", way_out=way))
                break
            came.done += 1
    after = await _measure(trial)
    tracemalloc.stop()
    came.leaks += _still_alive(dying)
    counted = came.done - _WARM_UP - 1
    came.growth = max(0, (after - measured) // counted) if counted >= _ENOUGH else None
    if came.growth is not None and came.growth > _GROWTH:
        way = "look for what code outside the plugin remembers of it: caches, registries, callbacks"
        came.leaks.append(warning(f"memory grows by {came.growth:,} bytes a reload", way_out=way))
    return came


@asynccontextmanager
async def _asking(trial: Trial, findings: list[Finding]) -> AsyncIterator[None]:
    """Ask the plugin's quiet paths all the time; what goes wrong is added to ``findings``, once each."""
    is_over = asyncio.Event()
    manifest = trial.manager.get(trial.plugin).manifest
    asker = None
    if trial.quiet_paths and manifest is not None and manifest.replace == "beside":
        asker = asyncio.create_task(_ask_until(is_over, trial, findings), name="asking")
    try:
        yield
    finally:
        is_over.set()
        if asker is not None:
            await asker


async def _ask_until(is_over: asyncio.Event, trial: Trial, findings: list[Finding]) -> None:
    known: set[str] = set()
    for path in itertools.cycle(trial.quiet_paths):
        if is_over.is_set():
            return
        problem = await trial.ask(path)
        if problem is not None and path not in known:
            known.add(path)
            findings.append(problem)
        await asyncio.sleep(0)


# --- what remains ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Module:
    """A module of a generation that is about to be replaced."""

    name: str
    generation: int
    reference: weakref.ref[ModuleType]


def _modules(trial: Trial) -> list[_Module]:
    generation = trial.manager._plugins.generations[trial.plugin]
    number = generation.owner.generation
    return [_Module(name, number, weakref.ref(module)) for name, module in generation.modules.items()]


async def _measure(trial: Trial) -> int:
    """Return the bytes in use, counted since the first call, once everything that can go has gone."""
    await trial.manager.settle()
    gc.collect()
    if not tracemalloc.is_tracing():
        tracemalloc.start()
    return tracemalloc.get_traced_memory()[0]


def _still_alive(modules: list[_Module]) -> list[Finding]:
    alive = [each for each in modules if each.reference() is not None]
    found = []
    for name, group in itertools.groupby(sorted(alive, key=lambda each: each.name), key=lambda each: each.name):
        members = list(group)
        what = f"{len(members)} old generations of module {name} are still in memory"
        kept_by = find_keeper(members[0].reference())
        found.append(warning(what, way_out=f"kept by {kept_by}" if kept_by else ""))
    return found
