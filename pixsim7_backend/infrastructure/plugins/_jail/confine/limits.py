"""Bounds on what one process may use: the kernel's resource limits, and its place behind the host."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

from pixsim7_backend.infrastructure.plugins._jail.spec import JailLimits

__all__ = ["apply_limits", "step_back"]

_NICE = 5
_FIRST_TO_GO = 800


def apply_limits(limits: JailLimits, *, counts_threads: bool) -> None:
    """Bound this process; nothing can raise the bounds again.

    ``counts_threads`` says whether its user has no other processes: the kernel counts threads per user. There is
    no limit of CPU time, which would add up over the days; the host watches that.
    """
    bounds = {
        resource.RLIMIT_AS: limits.address_space,
        resource.RLIMIT_DATA: limits.memory,
        resource.RLIMIT_NOFILE: limits.open_files,
        resource.RLIMIT_FSIZE: limits.file_size,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_SIGPENDING: 64,
        resource.RLIMIT_RTPRIO: 0,
        resource.RLIMIT_NICE: 0,
    }
    if counts_threads:
        bounds[resource.RLIMIT_NPROC] = limits.threads
    for which, bound in bounds.items():
        _, hardest = resource.getrlimit(which)
        lower = bound if hardest == resource.RLIM_INFINITY else min(bound, hardest)
        resource.setrlimit(which, (lower, lower))


def step_back() -> None:
    """Let the host go first where both want the processor, and last where memory runs out.

    Where the kernel groups processes by session, ``nice`` counts only within that group: it gets a value too.
    """
    os.nice(_NICE)
    for file, value in (("autogroup", _NICE), ("oom_score_adj", _FIRST_TO_GO)):
        with contextlib.suppress(OSError):
            Path("/proc/self", file).write_text(str(value))
