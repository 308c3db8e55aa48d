"""What this machine can confine a plugin with, found out by doing it to processes that are thrown away."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from pixsim7_backend.infrastructure.plugins._jail.cgroups import JailGroups, NoGroupsError, find_base
from pixsim7_backend.infrastructure.plugins._jail.level import ConfinementLevel, ConfinementReport
from pixsim7_backend.infrastructure.plugins._jail.spec import JailLimits

from .syscalls import find_machine

__all__ = ["probe_level"]

_SOME_UID = 61184


@cache
def probe_level() -> ConfinementReport:
    """Return what a jail would be confined with here; the first call takes some hundredths of a second."""
    if find_machine() is None:
        note = "plugins are confined on Linux on x86_64 and aarch64 only; this is "
        return ConfinementReport(
            level=ConfinementLevel.NONE, notes=(f"{note}{sys.platform} on {platform.machine() or 'something else'}",)
        )
    with tempfile.TemporaryDirectory(prefix="pixsim7-probe-") as scratch:
        whole = _attempt(lambda: _confined(scratch, has_namespaces=True))
        plain = whole if "level" in whole else _attempt(lambda: _confined(scratch, has_namespaces=False))
    if "level" not in plain:
        return ConfinementReport(level=ConfinementLevel.NONE, notes=(f"confining fails: {plain['error']}",))
    own_uid = _attempt(_other_user) if os.geteuid() == 0 else {"error": "the host is not root"}
    no_group = _try_group()
    found = ConfinementReport.from_json(plain)
    return ConfinementReport(
        level=found.level,
        landlock_abi=found.landlock_abi,
        seccomp=found.seccomp,
        own_uid="error" not in own_uid,
        namespaces=found.namespaces,
        cgroup=no_group is None,
        notes=tuple(_iter_notes(found, whole.get("error"), own_uid.get("error"), no_group)),
    )


def _try_group() -> str | None:
    """Return why jails get no control groups; None: they do."""
    try:
        groups = JailGroups(find_base())
        groups.make("probe", JailLimits()).remove()
        groups.close()
    except (NoGroupsError, OSError) as error:
        return str(error)
    return None


def _iter_notes(
    found: ConfinementReport, no_namespaces: str | None, no_uid: str | None, no_group: str | None
) -> list[str]:
    notes = []
    if not found.landlock_abi:
        notes.append("no Landlock: that needs Linux 5.13 or newer, and 'landlock' in the kernel's parameter lsm=")
    elif found.landlock_abi < 4:
        notes.append(f"Landlock ABI {found.landlock_abi}: TCP is denied by the filter of system calls alone")
    if not found.seccomp:
        notes.append("no filter of system calls: the kernel is built without CONFIG_SECCOMP_FILTER")
    if no_namespaces is not None:
        notes.append(f"no namespaces ({no_namespaces}): plugins can find out which files exist")
    if no_uid is not None:
        notes.append(f"no user per plugin ({no_uid}): threads are counted by looking")
    if no_group is not None:
        notes.append(f"no control group per plugin ({no_group}): memory is bounded per process, and may be swapped")
    return notes


def _confined(scratch: str, *, has_namespaces: bool) -> dict[str, Any]:
    from .apply import ConfinementPlan, confine

    library = str(Path(os.__file__).parent)
    outside = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    report = confine(
        ConfinementPlan(
            code=(library,), plugin=scratch, scratch=scratch, limits=JailLimits(), parent=os.getppid(),
            has_namespaces=has_namespaces,
        )
    )  # fmt: skip
    if report.level >= ConfinementLevel.LANDLOCK:
        _expect_denial("listing a directory", lambda: os.open("etc", os.O_RDONLY, dir_fd=outside))
    if report.seccomp:
        _expect_denial("starting a process", os.fork)
    return report.to_json()


def _expect_denial(what: str, action: Callable[[], int]) -> None:
    try:
        result = action()
    except PermissionError:
        return
    if result == 0 and action is os.fork:
        os._exit(1)
    raise OSError(f"{what} should have been denied and was not")


def _other_user() -> dict[str, Any]:
    from .privileges import drop_capabilities

    drop_capabilities(become_uid=_SOME_UID)
    return {}


def _attempt(action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run ``action`` in a child; return what it returned, or its error.

    The child only makes system calls, and leaves by ``os._exit``: what makes it dangerous to fork a process with
    several threads, locks that nobody will ever release, it does not touch.
    """
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            try:
                outcome: dict[str, Any] = action()
            except BaseException as error:  # noqa: BLE001 - whatever it is, it is what the caller wants to know
                outcome = {"error": str(error)}
            os.write(writer, json.dumps(outcome).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        written = stream.read()
    os.waitpid(child, 0)
    said: dict[str, Any] = json.loads(written or b'{"error": "it was killed"}')
    return said
