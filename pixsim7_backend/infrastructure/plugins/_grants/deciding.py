"""What deciding about a plugin's permissions comes to, worked out before anything is stored. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from pixsim7_backend.infrastructure.plugins.errors import GrantRefusedError
from pixsim7_backend.infrastructure.plugins.types import PluginManifest

from .permissions import Grants, Permission, decide

__all__ = ["GrantsView", "decided", "decided_beside", "requested_by", "trusted_error", "view_json"]

NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantsView:
    """What a confined plugin asks for, and what was decided about that."""

    requested: tuple[str, ...]
    granted: tuple[str, ...]
    declined: tuple[str, ...]
    undecided: tuple[str, ...]
    """What of ``requested`` nobody has decided about: it does not start before that."""

    @classmethod
    def of(cls, manifest: PluginManifest | None, grants: Grants) -> GrantsView:
        """Return what these grants mean for what the manifest asks for."""
        requested = requested_by(manifest)
        return cls(
            requested=tuple(sorted(map(str, requested))),
            granted=tuple(sorted(map(str, grants.granted))),
            declined=tuple(sorted(map(str, grants.declined))),
            undecided=tuple(map(str, grants.undecided(requested))),
        )

    def to_json(self) -> dict[str, list[str]]:
        """Return the view as JSON-able values."""
        return {name: list(getattr(self, name)) for name in ("requested", "granted", "declined", "undecided")}


def view_json(view: GrantsView | None) -> dict[str, Any] | None:
    """Return a view as JSON-able values; None where there is none."""
    return view.to_json() if view else None


def trusted_error(plugin_id: str) -> GrantRefusedError:
    """Return the refusal to grant something to a plugin that runs in process."""
    problem = "it runs in the server's own process, where it may do everything; leave the grant out"
    return GrantRefusedError(plugin=plugin_id, problem=problem)


def requested_by(manifest: PluginManifest | None) -> frozenset[Permission]:
    """Return what a manifest asks for."""
    return frozenset(map(Permission.parse, manifest.permissions if manifest else ()))


def decided(plugin_id: str, manifest: PluginManifest | None, grant: Collection[str]) -> Grants:
    """Return the decision that grants these texts (see :func:`decide`), or nothing for ``"none"``.

    Raises:
        GrantRefusedError: a text is no permission, or the plugin does not ask for it.
    """
    if NONE in grant and len(set(grant)) > 1:
        raise GrantRefusedError(plugin=plugin_id, problem=f"{NONE!r} stands for no permission at all; grant it alone")
    try:
        return decide(requested_by(manifest), [each for each in grant if each != NONE])
    except ValueError as error:  # also of a permission that is not asked for
        raise GrantRefusedError(plugin=plugin_id, problem=str(error)) from None


def decided_beside(plugin_id: str, manifest: PluginManifest | None, grant: Collection[str], before: Grants) -> Grants:
    """Return the decision about the requests that ``grant`` names; of the others what was decided ``before`` stays.

    For whoever decides before they have read what the plugin asks for: what they did not think of stays undecided.
    ``"none"`` is about everything; errors as :func:`decided`.
    """
    whole = decided(plugin_id, manifest, grant)
    if NONE in grant:
        return whole
    named = [each for each in requested_by(manifest) if any(each.covers(given) for given in whole.granted)]
    now = decide(named, grant)

    def kept(former: frozenset[Permission]) -> frozenset[Permission]:
        return frozenset(each for each in former if not any(map(each.overlaps, named)))

    return Grants(now.granted | kept(before.granted), now.declined | kept(before.declined))
