"""The records of one app's plugins by id, each with a version that rises whenever it changes. Pure."""

from __future__ import annotations

from .records import PluginRecord


class Records(dict[str, PluginRecord]):
    """Counts the changes of each record, so that who decided on an older one can be told.

    ``start`` is the version of a new record; with one that rises from start to start of the server
    (the time in milliseconds) a version is never met again.
    """

    def __init__(self, start: int = 0) -> None:
        super().__init__()
        self._start = start
        self._versions: dict[str, int] = {}

    def __setitem__(self, plugin_id: str, record: PluginRecord) -> None:
        if self.get(plugin_id) != record:
            self.touch(plugin_id)
        super().__setitem__(plugin_id, record)

    def touch(self, plugin_id: str) -> None:
        """Count a change of what is wanted of the plugin."""
        self._versions[plugin_id] = self.version_of(plugin_id) + 1

    def version_of(self, plugin_id: str) -> int:
        return self._versions.get(plugin_id, self._start)
