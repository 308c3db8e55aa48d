"""What installed distributions do before a plugin is first enabled, where the host brings no step of its own."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path

from ._settings.platform import Prepare
from .records import PluginRecord

ENTRY_POINT_GROUP = "pixsim7.prepare"


def installed_prepare() -> Prepare | None:
    """Return a step that runs all installed ones by name, None when there is none; they are imported when it runs."""
    steps = sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda step: step.name)
    if not steps:
        return None

    def prepare(record: PluginRecord, folder: Path) -> None:
        for step in steps:
            step.load()(record, folder)

    return prepare
