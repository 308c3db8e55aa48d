"""Memory that jails share with the zygote: what they all touch lies side by side, so that each copies fewer pages.

To Python, using a thing is writing to it: its references are counted where it lies. So a forked process copies each
page on which something is that it uses; what matters is on how many pages that is, not how much.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import CodeType, FrameType, FunctionType
from typing import Any

__all__ = ["gather_code", "gather_names", "put_finders_away"]


def gather_code(run: Callable[[], object]) -> None:
    """Run this, and copy the code of all functions that it used to one place."""
    used: set[CodeType] = set()

    def note(frame: FrameType, event: str, _value: Any) -> None:
        if event == "call":
            used.add(frame.f_code)

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    for each in gc.get_objects():
        if type(each) is FunctionType and each.__code__ in used:
            each.__code__ = _copy(each.__code__)


def _copy(code: CodeType) -> CodeType:
    """Return the same code, and that of what is defined in it, as new objects."""
    constants = (_copy(each) if isinstance(each, CodeType) else each for each in code.co_consts)
    return code.replace(co_consts=tuple(constants))


def gather_names() -> None:
    """Copy the names of all modules to one place: a search for those of a package looks at each."""
    modules = {f"{name} "[:-1]: module for name, module in sys.modules.items()}
    sys.modules.clear()
    sys.modules.update(modules)


def put_finders_away() -> None:
    """Let there be no finders of files: each import of a plugin would tell every one of them to look anew.

    They are kept: freed, they would leave holes, which children would fill, a page for each.
    """
    _away.append(dict(sys.path_importer_cache))
    sys.path_importer_cache.clear()


_away: list[object] = []
