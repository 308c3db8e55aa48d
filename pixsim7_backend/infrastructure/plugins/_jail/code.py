"""Which files hold the code that every jail may read: the interpreter's, installed packages, what was preloaded."""

from __future__ import annotations

import sys
import sysconfig
import zoneinfo
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

__all__ = ["SHARED", "find_code", "find_exposed", "reach_folder"]

_INSTALLED = ("site-packages", "dist-packages")

SHARED = ("/usr/lib", "/lib", "/usr/lib64", "/lib64", "/etc/ld.so.cache", "/etc/localtime", *zoneinfo.TZPATH)
"""What a machine's programs share: libraries that packages are linked with, and time zones."""


def find_code() -> tuple[str, ...]:
    """Return the directories on this process's ``sys.path`` that hold nothing but code.

    Of another entry, like the checkout of a project, where settings and data may lie beside the code, only the
    packages count that are imported by now.
    """
    standard = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    found = {path for path in standard if Path(path).is_dir()}
    for entry in sys.path:
        if not Path(entry).is_dir():
            continue
        if Path(entry).name in _INSTALLED or any(Path(entry).is_relative_to(path) for path in standard):
            found.add(entry)
        else:
            found.update(_imported_from(entry))
    return tuple(sorted(found))


def find_exposed() -> tuple[str, ...]:
    """Return the directories that every jail may read, of this process's code and of the machine's."""
    return (*find_code(), *SHARED)


def _imported_from(entry: str) -> set[str]:
    """Return the folders of the packages, directly in this directory, that are imported."""
    folders = set()
    for name, module in tuple(sys.modules.items()):
        if "." in name:
            continue
        for path in tuple(getattr(module, "__path__", ())):
            if str(Path(path).parent) == entry.rstrip("/"):
                folders.add(path)
    return folders


def reach_folder(folder: Path) -> None:
    """Let imports find this package in a directory that cannot be listed, since others' plugins lie beside it."""
    sys.path_importer_cache[str(folder.parent)] = _OneFolder(folder)


class _OneFolder:
    """The finder of a directory in which there is one package, as far as anybody is told."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find_spec(self, name: str, target: ModuleType | None = None) -> ModuleSpec | None:
        if name.rpartition(".")[2] != self._folder.name:
            return None
        first, place = self._folder / "__init__.py", [str(self._folder)]
        if first.exists():
            return spec_from_file_location(name, first, submodule_search_locations=place)
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = place
        return spec

    def invalidate_caches(self) -> None:
        """Nothing is remembered."""
