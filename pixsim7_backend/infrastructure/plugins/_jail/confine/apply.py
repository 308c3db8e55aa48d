"""Confines this process for good, as far as the kernel can: the steps in the order that they need."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pixsim7_backend.infrastructure.plugins._jail.level import ConfinementLevel, ConfinementReport
from pixsim7_backend.infrastructure.plugins._jail.spec import JailLimits

from . import landlock, namespaces
from .limits import apply_limits, step_back
from .privileges import die_with_parent, drop_capabilities, forbid_new_privileges, hide_memory
from .readable import check_files, check_readable
from .seccomp import install_filter

__all__ = ["ConfinementPlan", "confine"]

_DEVICES_READ = ("/dev/urandom",)
_DEVICES_WRITE = ("/dev/null",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfinementPlan:
    """What a process is confined to. All paths are absolute."""

    code: tuple[str, ...]
    """Directories that it cannot do without: the interpreter's, packages, the plugin's."""
    plugin: str
    """The one of them that is the plugin's own."""
    more: tuple[str, ...] = ()
    """Files and directories that it can read where they exist."""
    scratch: str
    """The directory that it can write to."""
    limits: JailLimits
    uid: int | None = None
    """The user that it becomes; None: that of the host."""
    parent: int
    """The process that it dies with."""
    has_namespaces: bool
    """Namespaces were found to work here."""


def confine(plan: ConfinementPlan) -> ConfinementReport:
    """Confine this process, which must have a single thread; return what came of it.

    Landlock and the filter are left out where the kernel has none: whoever calls looks at the level.

    Raises:
        OSError: the kernel refused a step that it should be able to do.
        UnreadableError: the user that it became cannot read what it needs.
    """
    _require_one_thread()
    die_with_parent(plan.parent)
    step_back()
    more = tuple(path for path in plan.more if Path(path).exists())
    needed = (*plan.code, plan.scratch)
    check_readable(needed)
    if plan.has_namespaces:
        namespaces.isolate()
        namespaces.own_tree((*plan.code, *more), (plan.scratch,), (*_DEVICES_READ, *_DEVICES_WRITE), at=plan.scratch)
    # The kernel counts threads per user, in each user namespace anew.
    apply_limits(plan.limits, counts_threads=plan.uid is not None or (plan.has_namespaces and os.getuid() != 0))
    drop_capabilities(become_uid=plan.uid)
    die_with_parent(plan.parent)
    os.umask(0o077)
    check_readable(needed)
    check_files(plan.plugin)
    forbid_new_privileges()
    abi = landlock.find_abi()
    if abi:
        landlock.restrict(_rules(plan, more), abi)
    hide_memory()
    has_filter = _install_filter()
    return ConfinementReport(
        level=find_level(abi, has_filter=has_filter, has_namespaces=plan.has_namespaces),
        landlock_abi=abi,
        seccomp=has_filter,
        own_uid=plan.uid is not None,
        namespaces=namespaces.NAMES if plan.has_namespaces else (),
    )


def find_level(abi: int, *, has_filter: bool, has_namespaces: bool) -> ConfinementLevel:
    """Return the level that these parts make; one that lacks its base does not count."""
    if not abi:
        return ConfinementLevel.LIMITS
    if not has_filter:
        return ConfinementLevel.LANDLOCK
    return ConfinementLevel.NAMESPACED if has_namespaces else ConfinementLevel.CONFINED


def _require_one_thread() -> None:
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads != 1:
        raise RuntimeError(f"a process with {threads} threads cannot be confined: Landlock takes one of them")


def _rules(plan: ConfinementPlan, more: tuple[str, ...]) -> list[tuple[str, landlock.Access]]:
    return [
        *((path, landlock.READ) for path in (*plan.code, *more)),
        *((path, landlock.Access.READ_FILE) for path in _DEVICES_READ),
        *((path, landlock.Access.READ_FILE | landlock.Access.WRITE_FILE) for path in _DEVICES_WRITE),
        (plan.scratch, landlock.WRITE),
    ]


def _install_filter() -> bool:
    try:
        install_filter()
    except OSError:
        return False
    return True
