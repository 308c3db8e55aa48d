"""Finding plugins in directories and installed packages. Reads, never imports.

How the code of what is found is imported (``PluginSource.package``):

* a directory inside an importable package, like ``pixsim7_backend/plugins``: by its dotted name,
  ``pixsim7_backend.plugins.<folder>``;
* any other directory: under a synthetic parent made for it, ``pixsim7_plugins_<hash>.<folder>``,
  whose ``__path__`` is the directory, so that relative imports work and names never clash;
* an entry point: by the dotted name it gives.

A folder without ``__init__.py`` is a namespace package in all three cases: nothing special is needed.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import keyword
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Literal

from pixsim7_backend.infrastructure.plugins._plan.plan import Candidate
from pixsim7_backend.infrastructure.plugins.errors import (
    ConfigurationError,
    EntryPointError,
    InvalidManifestError,
    MissingManifestError,
    PluginDirectoryError,
    PluginError,
    PluginFolderError,
)
from pixsim7_backend.infrastructure.plugins.records import PluginSource, SourceRank
from pixsim7_backend.infrastructure.plugins.types import PluginManifest, normalize_plugin_id

from .manifest_source import DynamicManifest, read_manifest

__all__ = [
    "Community",
    "Discovery",
    "Isolation",
    "discover",
    "discover_directory",
    "discover_entry_points",
    "find_directory",
    "holds_plugin",
    "read_folder",
]

ENTRY_POINTS = "pixsim7.plugins"

#: The directory that holds the installed ``pixsim7_backend`` package.
INSTALLATION = Path(__file__).resolve().parents[4]


Isolation = Literal["jail", "in-process"]
"""How the code of a community plugin runs."""


@dataclass(frozen=True, slots=True)
class Community:
    """The directory of strangers' plugins: they run in jails, but for those that the operator wants in process."""

    directory: Path
    """Absolute; it need not exist."""
    isolation: Mapping[str, Isolation] = field(default_factory=dict)
    """By normalised id; a jail for the others."""

    @classmethod
    def at(cls, directory: str | os.PathLike[str] | None, isolation: Mapping[str, Isolation]) -> Community | None:
        """Return the one at this place, a relative one in the working directory; None where there is no place."""
        if directory is None:
            return None
        by_id = {normalize_plugin_id(each): kind for each, kind in isolation.items()}
        return cls(Path(os.path.abspath(directory)), by_id)  # noqa: PTH100  # links are not followed, as below

    def confines(self, candidate: Candidate) -> bool:
        """Tell whether a plugin of this directory runs in a jail.

        One that takes a name which is not its folder's cannot take over what the operator said of that name.
        """
        is_named = candidate.id == normalize_plugin_id(candidate.source.folder)
        return not is_named or self.isolation.get(candidate.id, "jail") == "jail"

    def discover(self) -> list[Candidate]:
        """Return what its folders hold, by name; nothing while it does not exist."""
        if not os.path.isdir(self.directory):  # noqa: PTH112  # Path.is_dir raises where it may not look
            return []
        found = discover_directory(self.directory, rank=SourceRank.COMMUNITY)
        return [self.place(each) for each in found]

    def read(self, source: PluginSource) -> Candidate | None:
        """Read one of its folders again; None when it holds no plugin any more."""
        candidate = read_folder(source)
        return self.place(candidate) if candidate else None

    def place(self, candidate: Candidate) -> Candidate:
        """Return a candidate as one of this directory."""
        source = replace(candidate.source, rank=SourceRank.COMMUNITY, is_confined=self.confines(candidate))
        return replace(candidate, source=source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """What was found: directories first, in the order given, each by folder; then entry points by name."""

    candidates: tuple[Candidate, ...] = ()
    directories: tuple[Path, ...] = ()
    """The directories that exist, as the candidates' paths begin."""
    community: Community | None = None
    """Where plugins of strangers are, which may not exist yet."""

    @property
    def folders(self) -> tuple[str, ...]:
        """The folder names, for the guide's log line."""
        return tuple(candidate.source.folder for candidate in self.candidates)

    def read(self, source: PluginSource) -> Candidate | None:
        """Read one plugin's folder again; None when it holds no plugin any more."""
        if self.community is not None and source.rank is SourceRank.COMMUNITY:
            return self.community.read(source)
        return read_folder(source)

    def find(self, folder: Path) -> Candidate | None:
        """Return what a folder of one of the directories holds now, None when that is no plugin."""
        is_community = self.community is not None and folder.parent == _place(self.community.directory)[1]
        found = self.community.discover() if self.community and is_community else discover_directory(folder.parent)
        return next((each for each in found if each.source.path == folder), None)


def discover(
    directories: Iterable[str | os.PathLike[str]],
    *,
    rank: SourceRank = SourceRank.FIRST_PARTY,
    entry_points: Iterable[importlib.metadata.EntryPoint] | None = None,
    community: Community | None = None,
    exposed: Iterable[str] = (),
) -> Discovery:
    """Find the plugins of several directories, of the installed packages and of strangers.

    Args:
        directories: relative ones as in :func:`find_directory`; the same one twice counts once.
        rank: how far the directories are trusted.
        entry_points: default: those that installed packages declare.
        community: where strangers' plugins are.
        exposed: what every jail may read.

    Raises:
        PluginDirectoryError: a directory does not exist.
        ConfigurationError: the strangers' directory is one of those that are trusted, or lies where every jail reads.
    """
    paths: dict[str, Path] = {}
    for directory in directories:
        path = find_directory(directory)
        paths.setdefault(os.path.realpath(path), path)
    if community is not None and os.path.realpath(community.directory) in paths:
        problem = f"names {community.directory}, whose plugins are trusted; strangers' plugins need one of their own"
        raise ConfigurationError(source="COMMUNITY_PLUGINS_DIR", problem=problem)
    if community is not None:
        _check_hidden(community.directory, exposed)
    candidates = [each for path in paths.values() for each in discover_directory(path, rank=rank)]
    strangers = community.discover() if community else []
    places = [*paths.values(), *([community.directory] if community and community.directory.is_dir() else [])]
    return Discovery(
        candidates=(*candidates, *discover_entry_points(entry_points), *strangers),
        directories=tuple(_place(path)[1] for path in places),
        community=community,
    )


def _check_hidden(directory: Path, exposed: Iterable[str]) -> None:
    """Refuse a directory in which strangers' plugins could read one another."""
    real = Path(os.path.realpath(directory))
    for each in exposed:
        if real.is_relative_to(os.path.realpath(each)):
            problem = (
                f"names {directory}, which lies in {each}: every jail may read what is there, so that strangers'"
                " plugins would read one another; name a directory outside of the code, like ./community_plugins"
            )
            raise ConfigurationError(source="COMMUNITY_PLUGINS_DIR", problem=problem)


def find_directory(directory: str | os.PathLike[str], *, installation: Path = INSTALLATION) -> Path:
    """Return the absolute path of a plugin directory.

    A relative one is looked up under the working directory, else beside the installed package.

    Raises:
        PluginDirectoryError: it is in neither place.
    """
    name = os.fspath(directory)
    bases = (Path.cwd(), installation)
    # Links are not followed: a linked directory inside a package belongs to the package.
    searched = list(dict.fromkeys(Path(os.path.abspath(base / name)) for base in bases))  # noqa: PTH100
    for path in searched:
        if os.path.isdir(path):  # noqa: PTH112  # Path.is_dir raises where it may not look
            return path
    raise PluginDirectoryError(directory=name, searched=searched)


def discover_directory(directory: Path, *, rank: SourceRank = SourceRank.FIRST_PARTY) -> list[Candidate]:
    """Return what the folders of one directory hold, by name.

    A folder with ``manifest.py`` is a plugin, one with ``__init__.py`` alone a failed one, one with
    neither is none.

    Raises:
        PluginDirectoryError: the directory cannot be read.
    """
    try:
        names = sorted(entry.name for entry in os.scandir(directory) if _is_searched(entry))
    except OSError as error:
        raise PluginDirectoryError(directory=str(directory), searched=[directory]) from error
    parent, path = _place(directory)
    sources = (PluginSource(folder=name, path=path / name, package=f"{parent}.{name}", rank=rank) for name in names)
    return [_folder_candidate(source) for source in sources if holds_plugin(source)]


def read_folder(source: PluginSource) -> Candidate | None:
    """Read one plugin's folder again; None when it holds no plugin any more."""
    return _candidate(source) if holds_plugin(source) else None


def discover_entry_points(entry_points: Iterable[importlib.metadata.EntryPoint] | None = None) -> list[Candidate]:
    """Return the plugins that installed packages offer in the group ``pixsim7.plugins``, by name."""
    found = importlib.metadata.entry_points(group=ENTRY_POINTS) if entry_points is None else entry_points
    unique = {(each.name, each.value): each for each in found}
    return [_entry_point_candidate(unique[key]) for key in sorted(unique)]


# --- folders ------------------------------------------------------------------------------------


def _is_searched(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir() and not entry.name.startswith((".", "__"))
    except OSError:  # a link that leads nowhere or in a circle
        return False


def holds_plugin(source: PluginSource) -> bool:
    """Tell whether the folder is a plugin's, a working one or not."""
    return any(os.path.lexists(source.path / name) for name in ("manifest.py", "__init__.py"))


def _folder_candidate(source: PluginSource) -> Candidate:
    candidate = _candidate(source)
    error = _folder_error(source)
    return replace(candidate, error=error) if error else candidate


def _candidate(source: PluginSource) -> Candidate:
    """Read one plugin; whatever is wrong with it becomes the candidate's error."""
    plugin = normalize_plugin_id(source.folder)
    if not os.path.lexists(source.manifest_file):
        return _failed(source, MissingManifestError(plugin=plugin, directory=source.path))
    try:
        manifest = read_manifest(source.manifest_file, plugin=plugin)
    except InvalidManifestError as error:
        return _failed(source, error)
    return _dynamic(source, manifest) if isinstance(manifest, DynamicManifest) else _literal(source, manifest)


def _folder_error(source: PluginSource) -> PluginFolderError | None:
    """Return the error of a folder whose name Python cannot import."""
    if source.folder.isidentifier() and not keyword.iskeyword(source.folder):
        return None
    plugin = normalize_plugin_id(source.folder)
    name = re.sub(r"\W+", "_", source.folder.lower()).strip("_")
    suggestion = name if name.isidentifier() and not keyword.iskeyword(name) else f"plugin_{name}".rstrip("_")
    return PluginFolderError(plugin=plugin, directory=source.path, suggestion=suggestion)


def _failed(source: PluginSource, error: PluginError) -> Candidate:
    return Candidate(id=error.plugin, source=source, error=error)


def _literal(source: PluginSource, manifest: PluginManifest) -> Candidate:
    return Candidate(id=manifest.id, source=source, manifest=manifest, warnings=_mismatch(source, manifest.id))


def _dynamic(source: PluginSource, dynamic: DynamicManifest) -> Candidate:
    """Return a candidate without manifest, to be imported, unless it is not trusted or says that it is off."""
    known = dynamic.known
    plugin = known.get("id", normalize_plugin_id(source.folder))
    warnings = _mismatch(source, plugin)
    if known.get("enabled") is False and "id" in known:
        return Candidate(id=plugin, source=source, manifest=PluginManifest.model_validate(known), warnings=warnings)
    if source.is_trusted:
        return Candidate(id=plugin, source=source, warnings=warnings)
    problem = f"{dynamic.what}, but this plugin's code is not run to find out; write it as a literal"
    error = InvalidManifestError(plugin=plugin, file=dynamic.file, line=dynamic.line, problems=[problem])
    return _failed(source, error)


def _mismatch(source: PluginSource, plugin: str) -> tuple[str, ...]:
    """Warn of an id that is not the folder's name."""
    if normalize_plugin_id(source.folder) == plugin:
        return ()
    expected = plugin.replace("-", "_")
    return (f"plugin {plugin!r} lies in folder {source.folder!r}; rename the folder to {expected!r}, or change the id",)


# --- names under which code is imported -----------------------------------------------------------


def _place(directory: Path) -> tuple[str, Path]:
    """Return the name of the package whose children the plugins of a directory are, and its path as they see it."""
    return _find_importable(directory) or (_synthetic_name(directory), directory)


def _find_importable(directory: Path) -> tuple[str, Path] | None:
    """Return the dotted name of a directory inside an importable package, and its path as an import finds it."""
    parts = directory.parts
    for depth in range(1, len(parts)):
        package, below = Path(*parts[: depth + 1]), parts[depth + 1 :]
        names = (package.name, *below)
        if not all(name.isidentifier() and not keyword.iskeyword(name) for name in names):
            continue
        location = _find_location(package)
        if location is not None:
            return ".".join(names), Path(location, *below)
    return None


def _find_location(package: Path) -> str | None:
    """Return where importing the folder's name as a top-level package finds this folder, if it does."""
    if not os.path.isfile(package / "__init__.py"):  # noqa: PTH113  # Path.is_file raises where it may not look
        return None
    try:
        spec = importlib.util.find_spec(package.name)
    except (ImportError, ValueError, AttributeError):
        return None
    locations = (spec and spec.submodule_search_locations) or ()
    return next((each for each in locations if os.path.realpath(each) == os.path.realpath(package)), None)


def _synthetic_name(directory: Path) -> str:
    """Return a parent package name that belongs to this directory alone."""
    return f"pixsim7_plugins_{hashlib.sha256(os.fsencode(os.path.realpath(directory))).hexdigest()[:12]}"


# --- entry points -------------------------------------------------------------------------------


def _entry_point_candidate(entry_point: importlib.metadata.EntryPoint) -> Candidate:
    name, value = entry_point.name, entry_point.value.strip()
    path = _find_package(value)
    source = PluginSource(folder=name, path=path or Path(), package=value, rank=SourceRank.ENTRY_POINT)
    if path is not None:
        return _candidate(source)
    plugin = normalize_plugin_id(name)
    problem = "no such package is installed"
    return _failed(source, EntryPointError(plugin=plugin, group=ENTRY_POINTS, value=value, problem=problem))


def _find_package(name: str) -> Path | None:
    """Return the folder of an installed package without importing it or its parents."""
    search: Sequence[str] | None = None
    qualified = ""
    for part in name.split("."):
        qualified = f"{qualified}.{part}" if qualified else part
        spec = _find_spec(qualified, search) if part.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            return None
        search = list(spec.submodule_search_locations)
    return Path(search[0]) if search else None


def _find_spec(name: str, search: Sequence[str] | None) -> ModuleSpec | None:
    """Ask the finders as an import would; ``importlib.util.find_spec`` would import the parents."""
    loaded = sys.modules.get(name)
    if loaded is not None and loaded.__spec__ is not None:
        return loaded.__spec__
    for finder in sys.meta_path:
        spec = finder.find_spec(name, search) if hasattr(finder, "find_spec") else None
        if spec is not None:
            return spec
    return None
