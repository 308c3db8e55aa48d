"""Replacing a plugin again and again: does it go on serving, does the old code die, does memory stay flat."""

from __future__ import annotations

import asyncio
import gc
import itertools
import tracemalloc
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from statistics import median
from types import ModuleType

from pixsim7_backend.infrastructure.plugins import PluginError
from pixsim7_backend.infrastructure.plugins._ledger.leaks import find_keeper

from .trials import Trial
from .verdicts import Finding, warning

_WARM_UP = 6
"""Reloads before memory is measured: by then most caches have been filled once."""
_ENOUGH = 8
"""Measured reloads from which on their median says something."""
_GROWTH = 25_000
"""Bytes a reload may leave behind before that is worth a warning.

What libraries remember while they warm up comes to 5,000 to 15,000; the code of a small plugin takes 100,000.
"""
_ROUNDS = 3
"""Collections until what can go has gone: caches with weak values let go of their keys one round later."""


@dataclass(slots=True)
class Reloads:
    """What came of replacing a plugin many times."""

    findings: list[Finding] = field(default_factory=list)
    leaks: list[Finding] = field(default_factory=list)
    done: int = 0
    growth: int | None = None
    """Bytes that a reload left behind, in the middle of all; None where there were too few to tell."""

    @property
    def growth_note(self) -> str:
        return "" if self.growth is None else f"{self.growth:,} bytes a reload"


async def replace_again(trial: Trial, times: int) -> Reloads:
    """Replace the plugin ``times`` times while its paths are asked; stop at the first that fails."""
    came, dying, scale = Reloads(), list[_Module](), _Scale(trial)
    async with _asking(trial, came.findings) as quiet:
        with closing(scale):
            for number in range(times):
                replaced = _modules(trial)
                try:
                    await trial.manager.reload(trial.plugin)
                except PluginError as error:
                    way = "reload must find everything that a first start finds"
                    came.findings.append(Finding(what=f"reload {number + 1} failed: {error}", way_out=way))
                    break
                dying += replaced
                came.done += 1
                if came.done >= _WARM_UP:
                    async with quiet:
                        await scale.measure()
    await trial.manager.settle()
    _collect()
    came.leaks += _still_alive(dying)
    came.growth = scale.growth
    if came.growth is not None and came.growth > _GROWTH:
        way = "look for what code outside the plugin remembers of it: caches, registries, callbacks"
        came.leaks.append(warning(f"memory grows by {came.growth:,} bytes a reload", way_out=way))
    return came


@asynccontextmanager
async def _asking(trial: Trial, findings: list[Finding]) -> AsyncIterator[asyncio.Lock]:
    """Ask the plugin's quiet paths all the time; what goes wrong is added to ``findings``, once each.

    Yields a lock; whoever has it knows that no request is under way.
    """
    is_over, quiet = asyncio.Event(), asyncio.Lock()
    manifest = trial.manager.get(trial.plugin).manifest
    asker = None
    if trial.quiet_paths and manifest is not None and manifest.replace == "beside":
        asker = asyncio.create_task(_ask_until(is_over, quiet, trial, findings), name="asking")
    try:
        yield quiet
    finally:
        is_over.set()
        if asker is not None:
            await asker


async def _ask_until(is_over: asyncio.Event, quiet: asyncio.Lock, trial: Trial, findings: list[Finding]) -> None:
    known: set[str] = set()
    for path in itertools.cycle(trial.quiet_paths):
        if is_over.is_set():
            return
        async with quiet:
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


class _Scale:
    """Weighs the memory in use after each reload.

    The median of the differences is what a reload leaves behind: tables that grow by leaps, and shrink again
    later, are the same in most of them.
    """

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._weights: list[int] = []

    def close(self) -> None:
        tracemalloc.stop()

    async def measure(self) -> None:
        """Weigh once everything that can go has gone."""
        await self._trial.manager.settle()
        _collect()
        if not tracemalloc.is_tracing():
            tracemalloc.start()
        self._weights.append(tracemalloc.get_traced_memory()[0])

    @property
    def growth(self) -> int | None:
        if len(self._weights) <= _ENOUGH:
            return None
        return max(0, round(median(after - before for before, after in itertools.pairwise(self._weights))))


def _collect() -> None:
    for _ in range(_ROUNDS):
        if not gc.collect():
            return


def _still_alive(modules: list[_Module]) -> list[Finding]:
    alive = [each for each in modules if each.reference() is not None]
    found = []
    for name, group in itertools.groupby(sorted(alive, key=lambda each: each.name), key=lambda each: each.name):
        members = list(group)
        what = f"{len(members)} old generations of module {name} are still in memory"
        kept_by = find_keeper(members[0].reference())
        found.append(warning(what, way_out=f"kept by {kept_by}" if kept_by else ""))
    return found
