"""``pixsim7 demo``: a small world, filled and played through."""

from __future__ import annotations


def demo() -> None:
    """Fill a small playable world in a database of its own and play it through over HTTP."""
    from pixsim7_backend.demo import run

    run()
