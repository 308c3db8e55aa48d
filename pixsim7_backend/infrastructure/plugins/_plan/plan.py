"""What will be loaded, in which order, and what is held back and why: a value that can be read before it is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from pixsim7_backend.infrastructure.plugins.errors import DependencyHeldError, PluginError
from pixsim7_backend.infrastructure.plugins.records import PluginSource
from pixsim7_backend.infrastructure.plugins.states import PluginState
from pixsim7_backend.infrastructure.plugins.types import PluginManifest

from .topology import reachable, reversed_graph


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A plugin as it was found, before anything is decided.

    ``manifest`` is None while it is not known: ``error`` says why it never will be, and without one
    it has still to be imported.
    """

    id: str
    source: PluginSource
    manifest: PluginManifest | None = None
    error: PluginError | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The decision for one set of candidates. Every id is either in ``order`` or in ``held``."""

    candidates: Mapping[str, Candidate]
    """Who owns each id, by id."""
    order: tuple[str, ...]
    """What to load, in load order."""
    held: Mapping[str, PluginError]
    """What is held back, by id, and the first reason; the state it gets is the ``state`` of the reason."""
    requires: Mapping[str, tuple[str, ...]]
    """The installed plugins that each one requires, by id."""
    problems: tuple[PluginError, ...] = ()
    """Everything that is wrong, by id; a plugin may have several. Being disabled is not a problem."""
    rejected: tuple[tuple[Candidate, PluginError], ...] = ()
    """Candidates whose id belongs to another one, each with the reason."""
    cycles: tuple[tuple[str, ...], ...] = ()
    """Circles of requirements, each from its smallest id back to it."""
    warnings: tuple[str, ...] = ()
    """What is odd about the plugins together; each candidate has warnings of its own."""

    @property
    def required_held(self) -> tuple[str, ...]:
        """Trusted plugins with ``required=True`` that cannot run: reason to abort start-up."""
        return tuple(
            plugin_id
            for plugin_id, error in sorted(self.held.items())
            if error.state is not PluginState.DISABLED and _is_required(self.candidates[plugin_id])
        )

    def iter_warnings(self) -> Iterator[str]:
        """Yield the warnings of the plan, then those of the candidates, by id."""
        yield from self.warnings
        for _, candidate in sorted(self.candidates.items()):
            yield from candidate.warnings

    def dependants_of(self, plugin_id: str, *, transitive: bool = False) -> tuple[str, ...]:
        """Return the plugins that require this one, held ones too: in load order, then by id."""
        followers = reversed_graph(self.requires)
        found = (
            reachable(followers, followers.get(plugin_id, ())) - {plugin_id}
            if transitive
            else set(followers.get(plugin_id, ()))
        )
        place = {each: number for number, each in enumerate(self.order)}
        return tuple(sorted(found, key=lambda each: (place.get(each, len(place)), each)))

    def shutdown_order(self, plugin_id: str | None = None) -> tuple[str, ...]:
        """Return what must stop, in turn: all of it, or one plugin after all that need it."""
        if plugin_id is None:
            return self.order[::-1]
        affected = {plugin_id, *self.dependants_of(plugin_id, transitive=True)}
        return tuple(each for each in self.order[::-1] if each in affected)

    def without(self, plugin_id: str, error: PluginError) -> Plan:
        """Return the plan after a plugin turned out not to run: it and all that need it are held, no other moves."""
        affected = self.shutdown_order(plugin_id)
        if plugin_id not in affected:
            return self
        held = {**self.held, plugin_id: error}
        for each in reversed(affected[:-1]):
            culprit = next(needed for needed in self.requires[each] if needed in held)
            held[each] = held_by(each, culprit, held[culprit])
        return replace(
            self,
            order=tuple(each for each in self.order if each not in held),
            held=held,
            problems=(*self.problems, *(held[each] for each in reversed(affected))),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON-able values, for the command line and the admin API."""
        return {
            "order": list(self.order),
            "held": {plugin_id: {**e.to_json(), "state": str(e.state)} for plugin_id, e in sorted(self.held.items())},
            "problems": [problem.to_json() for problem in self.problems],
            "rejected": [{"path": str(c.source), "reason": reason.to_json()} for c, reason in self.rejected],
            "requires": {plugin_id: list(needed) for plugin_id, needed in sorted(self.requires.items())},
            "cycles": [list(cycle) for cycle in self.cycles],
            "warnings": list(self.iter_warnings()),
        }


def held_by(plugin_id: str, dependency: str, reason: PluginError) -> DependencyHeldError:
    """Return the reason of a plugin whose dependency is held; it hands on the root of the trouble."""
    because = reason.fields["because"] if isinstance(reason, DependencyHeldError) else str(reason)
    return DependencyHeldError(plugin=plugin_id, dependency=dependency, dependency_state=reason.state, because=because)


def _is_required(candidate: Candidate) -> bool:
    return candidate.manifest is not None and candidate.manifest.required and candidate.source.is_trusted
