"""The entries of ``sys.modules`` that belong to a plugin's package: take out, put back, forget.

Python cannot unload code. What can be done is to make the next import read the files again, and to let
go of everything that the interpreter and FastAPI remember of the old one.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import linecache
import sys
import typing
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from fastapi import routing
from fastapi.dependencies import models

Modules = Mapping[str, ModuleType]

#: FastAPI's caches by callable; they keep a plugin's endpoints, and with them its modules, alive.
_FASTAPI_CACHES = tuple(cache for cache in vars(models).values() if callable(cache) and hasattr(cache, "cache_clear"))


def modules_of(package: str) -> dict[str, ModuleType]:
    """Return what is imported of a package, by name."""
    prefix = package + "."
    # Only names are looked at: touching every module would copy a page of memory each in a forked process.
    return {name: sys.modules[name] for name in tuple(sys.modules) if name == package or name.startswith(prefix)}


def take_out(package: str) -> dict[str, ModuleType]:
    """Make the next import of the package read its files; return what was imported before."""
    taken = modules_of(package)
    forget(taken)
    return taken


def put_back(modules: Modules) -> None:
    """Undo :func:`take_out`, also on the parent package, whose attribute an import sets."""
    for name, module in modules.items():
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent in sys.modules and parent not in modules:
            setattr(sys.modules[parent], child, module)


def forget(modules: Modules) -> None:
    """Remove these modules, unless others of the same name have replaced them."""
    for name, module in modules.items():
        if sys.modules.get(name) is not module:
            continue
        del sys.modules[name]
        parent, _, child = name.rpartition(".")
        if vars(sys.modules[parent]).get(child) is module if parent in sys.modules else False:
            delattr(sys.modules[parent], child)


def read_files_anew(directory: Path) -> None:
    """Make an import see the files as they are: compiled ones are told apart by whole seconds and size only."""
    for file in directory.rglob("*.py"):
        linecache.cache.pop(str(file), None)
        try:
            Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)
        except (NotImplementedError, OSError):
            continue  # no compiled files here, or not ours to delete: then Python decides
    importlib.invalidate_caches()


def drop_stale_code(directory: Path) -> None:
    """Delete compiled files that were written before their source: Python does not see that within the same second.

    A server that is killed and started again quickly would go on with the code from before an edit.
    """
    for file in directory.rglob("*.py"):
        with contextlib.suppress(NotImplementedError, OSError):  # none, or not ours to delete: then Python decides
            compiled = Path(importlib.util.cache_from_source(str(file)))
            if compiled.stat().st_mtime_ns <= file.stat().st_mtime_ns:
                compiled.unlink()


def drop_caches() -> None:
    """Let go of what FastAPI and ``typing`` remember of callables and types; they are filled again when needed."""
    for cache in _FASTAPI_CACHES:
        cache.cache_clear()
    endpoint_contexts = getattr(routing, "_endpoint_context_cache", None)
    if isinstance(endpoint_contexts, dict):
        endpoint_contexts.clear()
    for clean in getattr(typing, "_cleanups", ()):
        clean()
