"""One loaded version of a plugin's code, from its import to the last undo."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from fastapi import FastAPI

from ._dispatch import PluginMount, build_mount
from ._hook_call import call_hook, call_sync_hook
from ._imports import check_imports
from ._ledger import Leak, LeakReport, find_threads
from ._lifespan import PluginLifespan
from ._loader import PluginCode, load_code, unload_code
from ._ownership import AppKey, Entry, Owner, running_as
from ._registrations import recording
from ._settings import PluginSettings
from .errors import PluginError
from .records import PluginSource

logger = logging.getLogger("pixsim7.plugins")


class Generation:
    """The code of one plugin, what it registered, and the steps that bring it up and down.

    Each step either succeeds or leaves nothing behind; the manager decides which step is next.
    """

    def __init__(
        self, app: FastAPI, key: AppKey, settings: PluginSettings, *, plugin: str, source: PluginSource, number: int
    ) -> None:
        self.plugin = plugin
        self.source = source
        self.owner = Owner(key, plugin, number, source.package, f"{source.path}/")
        self._app = app
        self._settings = settings
        self._code: PluginCode | None = None
        self._mount: PluginMount | None = None
        self._lifespan: PluginLifespan | None = None
        self._is_set_up = False
        self.is_prepared = False

    @property
    def code(self) -> PluginCode:
        assert self._code is not None, "import_code comes first"
        return self._code

    @property
    def mount(self) -> PluginMount:
        assert self._mount is not None, "load comes first"
        return self._mount

    # --- up ---------------------------------------------------------------------------------------

    def import_code(self) -> None:
        """Import the package, unless that has happened. Registers what its import registers."""
        if self._code is None:
            with recording(self._app, self.owner), running_as(self.owner, Entry.HOOK):
                self._code = load_code(self.source, self.plugin)

    def load(self, dependencies: Collection[str], packages: Mapping[str, str]) -> None:
        """Import, run ``on_load`` and build the routes aside; on any error nothing is left behind.

        Args:
            dependencies: ids whose packages this plugin may import.
            packages: package → id of every known plugin.
        """
        try:
            check_imports(self.plugin, self.source, dependencies, packages)
            self.import_code()
            self._set_up()
            self._mount = build_mount(
                self._app,
                owner=self.owner,
                routers=self.code.routers,
                prefix=self.code.manifest.prefix,
                tags=self.code.manifest.tags or (self.plugin,),
                middleware=self.code.middleware,
                exception_handlers=self.code.exception_handlers,
            )
        except BaseException:
            self.unload()
            raise

    def _set_up(self) -> None:
        """Run ``on_load``; again after a disable, since that undid what it had registered."""
        if self.code.on_load is not None:
            with recording(self._app, self.owner):
                call_sync_hook(self.owner, "on_load", self.code.on_load, self._app, limit=self._settings.hook_timeout)
        self._is_set_up = True

    async def enable(self) -> None:
        """Enter the routers' lifespans and run ``on_enable``; on any error everything is undone."""
        try:
            if not self._is_set_up:
                self._set_up()
            lifespan = PluginLifespan(self._app, self.owner, self.code.routers, self._settings.hook_timeout)
            self.mount.lifespan_state = await lifespan.start()
            self._lifespan = lifespan
            if self.code.on_enable is not None:
                with recording(self._app, self.owner):
                    await call_hook(self.owner, "on_enable", self.code.on_enable, limit=self._settings.hook_timeout)
        except BaseException:
            await self._take_down()
            raise

    # --- down -------------------------------------------------------------------------------------

    async def disable(self) -> tuple[LeakReport, PluginError | None]:
        """Drain, run ``on_disable``, undo everything; return the leak report and the hook's error, if any.

        The routes must be unpublished before, so that no new request comes in.
        """
        requests = await self.mount.drain(self._settings.drain_timeout)
        error: PluginError | None = None
        if self.code.on_disable is not None:
            try:
                await call_hook(self.owner, "on_disable", self.code.on_disable, limit=self._settings.hook_timeout)
            except PluginError as raised:
                error = raised
        report, lifespan_error = await self._take_down()
        stuck = tuple(Leak("request", name, "was not answered in time") for name in requests)
        leaks = (*stuck, *report.leaks, *find_threads(self.owner.directory))
        return LeakReport(self.plugin, report.undone, leaks), error or lifespan_error

    async def _take_down(self) -> tuple[LeakReport, PluginError | None]:
        error: PluginError | None = None
        lifespan, self._lifespan = self._lifespan, None
        if lifespan is not None:
            try:
                await lifespan.stop()
            except PluginError as raised:
                error = raised
            self.mount.lifespan_state = {}
        cancelled, alive = await self.owner.ledger.cancel_tasks(self._settings.task_timeout)
        undone, stubborn = self.undo()
        return LeakReport(self.plugin, (*cancelled, *undone), (*alive, *stubborn)), error

    def undo(self) -> tuple[tuple[str, ...], tuple[Leak, ...]]:
        """Undo every registration, with the plugin as the running code (an undo may be its own)."""
        self._is_set_up = False
        with running_as(self.owner, Entry.HOOK):
            return self.owner.ledger.undo()

    def unload(self) -> None:
        """Undo every registration and forget the code; tasks are cancelled, not waited for."""
        for task in self.owner.ledger.tasks:
            task.get_loop().call_soon_threadsafe(task.cancel)
        self.undo()
        self._code = self._mount = None
        unload_code(self.source.package)
