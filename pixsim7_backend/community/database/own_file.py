"""Where a community plugin's own tables lie beside the embedded database: a file for each plugin."""

from __future__ import annotations

from pathlib import Path

__all__ = ["own_file_of", "remove_own_file"]

_DIRECTORY = "community"
_PARTS = ("", "-wal", "-shm", "-journal")


def own_file_of(data_dir: Path, plugin: str) -> Path:
    """Return the file with the plugin's own tables; it need not exist."""
    return data_dir / _DIRECTORY / f"{plugin.replace('-', '_')}.sqlite3"


def remove_own_file(data_dir: Path, plugin: str) -> None:
    """Delete the plugin's own tables. Doing it twice is fine."""
    file = own_file_of(data_dir, plugin)
    for part in _PARTS:
        file.with_name(file.name + part).unlink(missing_ok=True)
