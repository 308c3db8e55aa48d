"""``python -m pixsim7_backend`` is the command ``pixsim7``."""

from __future__ import annotations

from typing import NoReturn

from pixsim7_backend.quick_imports import quick_imports


def main() -> NoReturn:
    """Run the command line in a process of its own; :func:`pixsim7_backend.cli.main` also runs in others."""
    with quick_imports():
        from pixsim7_backend import cli

    cli.main()


if __name__ == "__main__":
    main()
