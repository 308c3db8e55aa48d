"""What the operator wants of the plugins, and where it is kept: it outlives the process that was told.

Kept apart from what runs: a change is stored first and carried out then, so that a crash in between is
made good by the next start.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeGuard, TypeVar

from .errors import StateConflictError, StateFileError, StateUnavailableError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["FILE_NAME", "DesiredState", "FileStateStore", "MemoryStateStore", "StateStore"]

FILE_NAME = "plugin-state.json"
FORMAT = 1
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredState:
    """What the operator wants; where nothing is said, the manifests' wishes count."""

    switched: Mapping[str, bool] = field(default_factory=dict)
    """On or off, by id."""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Stored settings by id, as JSON-able values; secrets are encrypted."""
    grants: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    """What confined plugins may do and may not, by id: their permissions under ``granted`` and ``declined``."""
    audit: tuple[Mapping[str, Any], ...] = ()
    """Every decision about permissions, oldest first; only ever added to."""
    version: int = 0
    """Counts the changes."""

    def without_grants(self, plugin_id: str) -> DesiredState:
        """Return the state with nothing granted to a plugin; the same one where nothing is decided about it."""
        if plugin_id not in self.grants:
            return self
        return replace(self, grants={each: kept for each, kept in self.grants.items() if each != plugin_id})

    def without(self, plugin_id: str) -> DesiredState:
        """Return the state with nothing said of a plugin but in the audit; the same one where nothing is."""
        if not any(plugin_id in kept for kept in (self.switched, self.settings, self.grants)):
            return self
        return replace(
            self,
            switched={each: on for each, on in self.switched.items() if each != plugin_id},
            settings={each: values for each, values in self.settings.items() if each != plugin_id},
            grants={each: kept for each, kept in self.grants.items() if each != plugin_id},
        )


class StateStore(Protocol):
    """Keeps one :class:`DesiredState`. Both methods may block."""

    def load(self) -> DesiredState:
        """Return what is kept; an empty state where nothing ever was.

        Raises:
            StateUnavailableError: it cannot be reached now.
            PluginError: what is kept cannot be used, which is never taken for an empty state.
        """

    def save(self, state: DesiredState, *, expected_version: int) -> DesiredState:
        """Keep ``state`` for good, all of it or nothing; return it with the next version.

        What the audit held stays as it was; only what ``state`` has beyond that is added.

        Raises:
            StateConflictError: what is kept has another version than ``expected_version``.
            StateUnavailableError: it cannot be written now.
        """


class MemoryStateStore:
    """Keeps the desired state as long as the process lives: for tests, and for apps that want it so."""

    def __init__(self, state: DesiredState | None = None) -> None:
        self.state = state or DesiredState()

    def load(self) -> DesiredState:
        return self.state

    def save(self, state: DesiredState, *, expected_version: int) -> DesiredState:
        self.state = next_version(state, self.state, expected_version)
        return self.state


class FileStateStore:
    """Keeps the desired state in one JSON file, readable by its owner only; made by the first change.

    Written beside it and moved into place, so that a crash leaves the old or the new file; processes
    that write at the same time take turns.
    """

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self.file = Path(file).absolute()

    def load(self) -> DesiredState:
        try:
            content = self.file.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return DesiredState()
        except OSError as error:
            raise StateFileError(file=self.file, problem=f"cannot be read ({error.strerror})") from error
        return _parse(content, self.file)

    def save(self, state: DesiredState, *, expected_version: int) -> DesiredState:
        try:
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(self.file.with_name(f"{self.file.name}.lock")):
                saved = next_version(state, self.load(), expected_version)
                self._write(saved)
        except OSError as error:
            raise StateUnavailableError(
                place=str(self.file),
                problem=f"it cannot be written ({error.strerror})",
                way_out="make room, let this process write there, or name another directory with DATA_DIR;"
                " then repeat the change",
            ) from error
        return saved

    def _write(self, state: DesiredState) -> None:
        draft = self.file.with_name(f".{self.file.name}.draft")  # one is enough: only the lock's holder writes
        draft.unlink(missing_ok=True)  # of a process that was killed
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(_render(state))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.file)
        _sync_directory(self.file.parent)


def next_version(state: DesiredState, kept: DesiredState, expected_version: int) -> DesiredState:
    """Return ``state`` with the next version, its audit after what is kept of it; StateConflictError if late."""
    if kept.version != expected_version:
        raise StateConflictError(plugin="", expected=expected_version, found=kept.version)
    return replace(state, audit=(*kept.audit, *state.audit[len(kept.audit) :]), version=kept.version + 1)


def _render(state: DesiredState) -> str:
    document = {
        "format": FORMAT,
        "version": state.version,
        "switched": dict(state.switched),
        "settings": {each: dict(values) for each, values in state.settings.items()},
        "grants": {each: dict(kept) for each, kept in state.grants.items()},
        "audit": list(map(dict, state.audit)),
    }
    return json.dumps(document, indent=2, sort_keys=True, allow_nan=False) + "\n"


def _parse(content: bytes, file: Path) -> DesiredState:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise StateFileError(file=file, problem=f"is damaged ({error})") from error
    if not isinstance(document, dict) or not isinstance(document.get("format"), int):
        raise StateFileError(file=file, problem="is not a state file of the plugin platform")
    if document["format"] != FORMAT:
        problem = f"has format {document['format']}, but this version of the platform reads format {FORMAT}"
        raise StateFileError(file=file, problem=f"{problem}; install the version that wrote it")
    switched, settings, version = document.get("switched"), document.get("settings"), document.get("version")
    if not (_is_mapping_to(switched, bool) and _is_mapping_to(settings, dict) and isinstance(version, int)):
        raise StateFileError(file=file, problem="is damaged (switched, settings or version is missing or malformed)")
    grants, audit = document.get("grants", {}), document.get("audit", [])  # older files know neither
    if not (_is_mapping_to(grants, dict) and isinstance(audit, list) and all(isinstance(it, dict) for it in audit)):
        raise StateFileError(file=file, problem="is damaged (grants or audit is malformed)")
    return DesiredState(switched=switched, settings=settings, grants=grants, audit=tuple(audit), version=version)


def _is_mapping_to(value: Any, kind: type[T]) -> TypeGuard[dict[str, T]]:
    return isinstance(value, dict) and all(isinstance(each, kind) for each in value.values())


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file; the kernel lets go for a process that dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if sys.platform == "win32":
            msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sync_directory(directory: Path) -> None:
    """Make the new name last, where directories can be synced."""
    if sys.platform == "win32":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
