"""How much a plugin keeps in its scratch directory."""

from __future__ import annotations

from pixsim7_backend.infrastructure.plugins._jail.scratch import measure

__all__ = ["find_excess"]


def find_excess(directory: str, *, size: int, entries: int) -> str | None:
    """Return why what lies in a jail's scratch directory is too much; None: it is not.

    Follows no link, and looks at no more than so many files and directories.
    """
    use = measure(directory, entries)
    if use.entries > entries:
        return f"its scratch directory has more than the {entries:,} files and directories that are allowed"
    if use.size > size:
        return f"its scratch directory has {use.size:,} bytes; {size:,} are allowed"
    return None
