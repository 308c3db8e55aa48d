"""What must be true of a manager whenever no change is under way: everything that knows of a plugin says the same."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from typing import Any

from pixsim7_backend.infrastructure.plugins import PluginManager, PluginState, plugin_hooks
from pixsim7_backend.infrastructure.plugins._code.modules import modules_of
from pixsim7_backend.infrastructure.plugins._generation import Generation
from pixsim7_backend.infrastructure.plugins._ledger.ownership import Owner
from pixsim7_backend.infrastructure.plugins._ledger.registrations import OwnedState


def assert_consistent(manager: PluginManager) -> None:
    """Assert that records, plan, routes, modules, ledgers, events, ports, state and tasks agree."""
    assert not manager._turns._lock.locked(), "a change is under way"
    assert not manager._runner._retiring, "an old generation is still finishing"
    assert list(iter_contradictions(manager)) == []


def iter_contradictions(manager: PluginManager) -> Iterator[str]:
    """Yield everything that disagrees, in a sentence each."""
    yield from _records_and_routes(manager)
    yield from _generations(manager)
    yield from _registrations(manager)
    yield from _tasks(manager)
    stored = manager.desired._store.load()
    if stored != manager.desired.state:
        yield f"stored is {stored}, known is {manager.desired.state}"


def _records_and_routes(manager: PluginManager) -> Iterator[str]:
    plugins, plan = manager._plugins, manager.plan()
    enabled = {each.id for each in manager.iter_records() if each.state is PluginState.ENABLED}
    published = {each.plugin_id: each for each in manager._route.snapshot.order}
    if published.keys() != enabled:
        yield f"enabled are {sorted(enabled)}, but routes are published of {sorted(published)}"
    for each in enabled:
        if each not in plan.order:
            yield f"{each} runs, but the plan does not have it"
        if each not in plugins.generations:
            yield f"{each} runs without code"
        elif published.get(each) is not plugins.generations[each].mount:
            yield f"the routes of {each} are those of another generation"
    for record in manager.iter_records():
        if record.id in plugins.generations and record.generation != plugins.generations[record.id].owner.generation:
            yield f"the record of {record.id} is of another generation"
        if record.id in plan.held and record.state is not plan.held[record.id].state:
            yield f"{record.id} is {record.state}, but the plan holds it: {plan.held[record.id]!r}"
        if manager._is_started and record.id in plan.order and record.id not in enabled:
            yield f"{record.id} should run by the plan, but is {record.state} ({record.reason})"


def _generations(manager: PluginManager) -> Iterator[str]:
    for record in manager.iter_records():
        generation = manager._plugins.generations.get(record.id)
        imported = modules_of(record.source.package)
        if generation is None:
            if imported:
                yield f"{record.id} has no code, but modules: {sorted(imported)}"
            continue
        if not generation.is_settled:
            yield f"{record.id} is half-way up or down"
        if any(sys.modules.get(name) is not module for name, module in generation.modules.items()):
            yield f"modules of {record.id} are those of another generation"
        is_up = record.state is PluginState.ENABLED
        if is_up and generation.owner.ledger.stage is not None:
            yield f"{record.id} runs, but its registrations wait"
        if record.state is PluginState.DISABLED and (entries := generation.owner.ledger.entries):
            yield f"{record.id} is disabled, but has {[str(each.name) for each in entries]}"
        if not is_up and generation._lifespan is not None:
            yield f"{record.id} is {record.state}, but its lifespan is entered"


def _registrations(manager: PluginManager) -> Iterator[str]:
    key = manager._key
    for subscription in plugin_hooks.iter_subscriptions():
        if subscription.app is key and not _is_current(manager, subscription.owner):
            yield f"{subscription} is of a generation that is gone"
    for name, (owner, _) in key.ports.items():
        if not _is_current(manager, owner):
            yield f"port {name} is of a generation that is gone"
    assert isinstance(manager.app.state, OwnedState)
    for name, claim in manager.app.state._claims.items():
        if not _is_current(manager, claim.owner):
            yield f"app.state.{name} is of a generation that is gone"
    for generation in manager._plugins.generations.values():
        kinds = [entry.kind for entry in generation.owner.ledger.entries]
        heard = [each for each in plugin_hooks.iter_subscriptions() if each.owner is generation.owner]
        if kinds.count("subscription") != len(heard):
            yield f"{generation.plugin} has {kinds.count('subscription')} subscriptions and hears {len(heard)}"


def _is_current(manager: PluginManager, owner: Owner | None) -> bool:
    return owner is None or _owner_of(manager._plugins.generations.get(owner.plugin)) is owner


def _owner_of(generation: Generation | None) -> Owner | None:
    return generation.owner if generation else None


def _is_reported(manager: PluginManager, plugin: str, task: asyncio.Task[Any]) -> bool:
    """Tell whether the leak report of the plugin names the task: it swallows its cancellation."""
    report = manager.find_report(plugin)
    return report is not None and any(leak.name.startswith(f"{task.get_name()} (") for leak in report.leaks)


def _tasks(manager: PluginManager) -> Iterator[str]:
    """Tasks that run a plugin's code are on the ledger of the generation in service, or are its lifespan."""
    folders = {str(record.source.path): record.id for record in manager.iter_records()}
    for task in asyncio.all_tasks():
        code = getattr(task.get_coro(), "cr_code", None)
        plugin = next((i for folder, i in folders.items() if code and code.co_filename.startswith(f"{folder}/")), None)
        generation = manager._plugins.generations.get(plugin or "")
        if plugin is None or _is_reported(manager, plugin, task):
            continue
        if generation is None or task not in generation.owner.ledger.tasks:
            yield f"{task.get_name()} of {plugin} is on no ledger"
    for task in asyncio.all_tasks():
        if task.get_name().startswith("lifespan of "):
            lifespan = manager._plugins.generations.get(task.get_name().removeprefix("lifespan of "))
            if lifespan is None or lifespan._lifespan is None or lifespan._lifespan._task is not task:
                yield f"{task.get_name()} goes on"
