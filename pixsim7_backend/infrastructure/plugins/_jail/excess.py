"""What a jail uses beyond what the kernel keeps it from: the host looks, and ends it."""

from __future__ import annotations

from .process import JailProcess
from .scratch import measure

__all__ = ["find_excess"]


def find_excess(process: JailProcess) -> str | None:
    """Return why what a jail uses is too much; None: it is not. Reads the disk, and notes what it found there.

    No link is followed, and no more files and directories are looked at than are allowed.
    """
    limits, use = process.spec.limits, process.read_use()
    if use is not None and use.threads > limits.threads:
        return f"it has {use.threads} threads; {limits.threads} are allowed"
    scratch = process.scratch = measure(process.spec.scratch, limits.scratch_entries)
    if scratch.entries > limits.scratch_entries:
        return (
            f"its scratch directory has more than the {limits.scratch_entries:,} files and directories that are allowed"
        )
    if scratch.size > limits.scratch:
        return f"its scratch directory has {scratch.size:,} bytes; {limits.scratch:,} are allowed"
    return None
