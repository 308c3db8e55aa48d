"""One loaded version of a plugin's code, from its import to the last undo."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from typing import Any, Protocol

from fastapi import FastAPI

from ._attribution.figures import ConfinedFigures
from ._code.imports import check_imports
from ._code.loader import PluginCode
from ._code.loader import load_code as import_package
from ._code.modules import drop_caches, forget, modules_of
from ._dispatch import PluginMount, build_mount
from ._grants.permissions import Grants
from ._hooks.call import call_hook, call_sync_hook
from ._ledger.leaks import release_timers
from ._ledger.ledger import Leak, LeakReport, find_threads
from ._ledger.ownership import AppKey, Entry, Owner, running_as
from ._ledger.registrations import recording
from ._lifespan import PluginLifespan
from ._plan.plan import Candidate
from ._settings.form import SettingsForm
from ._settings.platform import PluginSettings
from ._settings.plugin import SettingsBook
from .errors import PluginError, StateNotHandedOverError, UnhealthyPluginError
from .records import PluginSource

CodeLoader = Callable[[Owner], PluginCode]
"""Brings the code of a generation to life; what it registers belongs to the owner."""


ReadSettings = Callable[[SettingsForm], Mapping[str, Any]]
"""Returns what is set of a form, its secrets in clear; raises a PluginError where it cannot be read."""


class JailLoader(Protocol):
    """Loads the code of plugins that run confined."""

    on_given_up: Callable[[str, str], None]
    """Is told of a plugin whose jail ended again and again, and of the evidence."""

    def load(self, candidate: Candidate, owner: Owner, grants: Grants, read_settings: ReadSettings) -> PluginCode:
        """Return code that stands for the plugin's; raises a PluginError where it cannot be loaded.

        Where its settings are wrong it is not, yet; those of the code returned say what is wrong with them.
        """

    async def regrant(self, plugin: str, grants: Grants) -> None:
        """Let other grants count for what runs of a plugin, at once."""

    def forget(self, plugin: str) -> None:
        """Forget what a plugin that was removed has used: who comes under its name begins anew."""


class DeferredJails:
    """Jails that are made when the first plugin needs one."""

    def __init__(self, make: Callable[[], JailLoader]) -> None:
        self.on_given_up: Callable[[str, str], None] = lambda _plugin, _evidence: None
        self._make = make
        self.made: JailLoader | None = None
        """None while nothing needed one."""

    def load(self, candidate: Candidate, owner: Owner, grants: Grants, read_settings: ReadSettings) -> PluginCode:
        """As :meth:`JailLoader.load`."""
        if self.made is None:
            self.made = self._make()
            self.made.on_given_up = self._tell
        return self.made.load(candidate, owner, grants, read_settings)

    async def regrant(self, plugin: str, grants: Grants) -> None:
        """As :meth:`JailLoader.regrant`."""
        if self.made is not None:
            await self.made.regrant(plugin, grants)

    def forget(self, plugin: str) -> None:
        """As :meth:`JailLoader.forget`."""
        if self.made is not None:
            self.made.forget(plugin)

    def _tell(self, plugin: str, evidence: str) -> None:
        self.on_given_up(plugin, evidence)  # whoever that is by then


logger = logging.getLogger("pixsim7.plugins")


class Generation:
    """The code of one plugin, what it registered, and the steps that bring it up and down.

    Each step either succeeds or leaves nothing behind; the manager decides which step is next.
    """

    def __init__(
        self,
        app: FastAPI,
        key: AppKey,
        settings: PluginSettings,
        *,
        book: SettingsBook,
        plugin: str,
        source: PluginSource,
        number: int,
        load_code: CodeLoader | None = None,
    ) -> None:
        self.plugin = plugin
        self.source = source
        self.owner = Owner(key, plugin, number, source.package, f"{source.path}/")
        self.is_prepared = False
        self.built_on: Mapping[str, Owner] = {}
        """The generations of its dependencies whose code it may have imported, by id."""
        self.imported: frozenset[str] = frozenset()
        """The plugins that its source imports."""
        self._app = app
        self._settings = settings
        self._book = book
        self._load_code = load_code or (lambda _owner: import_package(source, plugin))
        self._code: PluginCode | None = None
        self._modules: Mapping[str, Any] = {}
        self._mount: PluginMount | None = None
        self._lifespan: PluginLifespan | None = None
        self.is_set_up = False
        """Its settings are in force, and ``on_load`` has run."""
        self._judged: Future[Any] | None = None
        self.is_settled = True
        """Not half-way up or down, where only a change that is broken off leaves it."""

    @property
    def code(self) -> PluginCode:
        assert self._code is not None, "import_code comes first"
        return self._code

    @property
    def mount(self) -> PluginMount:
        assert self._mount is not None, "load comes first"
        return self._mount

    def read_figures(self) -> ConfinedFigures | None:
        """Return what it uses, where it runs confined."""
        return self._code.read_figures() if self._code is not None else None

    @property
    def modules(self) -> Mapping[str, Any]:
        """The modules of its package, by name."""
        return self._modules

    # --- up ---------------------------------------------------------------------------------------

    def import_code(self) -> None:
        """Import the package, unless that has happened. Registers what its import registers."""
        if self._code is None:
            with recording(self._app, self.owner), running_as(self.owner, Entry.HOOK):
                self._code = self._load_code(self.owner)
            self._modules = modules_of(self.source.package)

    def get_ready(self) -> None:
        """Do all of :meth:`load` that may block for long, in a thread: import, and let a jail judge its settings."""
        self.import_code()
        self.judge_settings()

    def judge_settings(self) -> None:
        """Let a jail judge what is set now, in a thread, for :meth:`configure`; who runs in process is not asked."""
        form = self.code.settings
        if form is None or not self.source.is_confined:
            return
        judged: Future[Any] = Future()
        try:
            with running_as(self.owner, Entry.HOOK):
                judged.set_result(self._book.resolve(self.plugin, form))
        except PluginError as error:
            judged.set_exception(error)  # raised where settings are put in force
        self._judged = judged

    def check_imports(self, dependencies: Collection[str], packages: Mapping[str, str]) -> None:
        """Refuse imports of other plugins than ``dependencies``; ``packages`` maps package to id."""
        self.imported = check_imports(self.plugin, self.source, dependencies, packages)

    def load(self, state: Any = None) -> None:
        """Import, run ``on_load`` and build the routes aside; on any error nothing is left behind.

        ``state`` is what the older generation's ``on_unload`` handed over.
        """
        try:
            self.import_code()
            self._set_up(state)
            self._mount = build_mount(
                self._app,
                owner=self.owner,
                routers=self.code.routers,
                prefix=self.code.manifest.prefix,
                tags=self.code.manifest.tags or (self.plugin,),
                middleware=self.code.middleware,
                exception_handlers=self.code.exception_handlers,
                description=self.code.description,
                is_confined=self.source.is_confined,
            )
        except BaseException:
            self.unload()
            raise

    def _set_up(self, state: Any = None) -> None:
        """Read its settings and run ``on_load``; again after a disable, since that undid what it had registered."""
        self.configure()
        on_load = self.code.on_load
        if on_load is not None:
            arguments = (self._app, state) if _takes_state(on_load) else (self._app,)
            with recording(self._app, self.owner):
                call_sync_hook(self.owner, "on_load", on_load, *arguments, limit=self._settings.hook_timeout)
        self.is_set_up = True

    def configure(self) -> None:
        """Put its settings in force, as they were judged, or else are read now; on any error those in force stay."""
        form, model, owner = self.code.settings, self.code.settings_model, self.owner
        if form is None:
            return
        judged, self._judged = self._judged, None
        with running_as(owner, Entry.HOOK):
            owner.settings.current = judged.result() if judged else self._book.resolve(self.plugin, form)
        if model is not None and owner.app.settings.get(model) is not owner.settings:
            owner.app.settings[model] = owner.settings
            owner.ledger.add_release("settings", model.__name__, lambda: owner.app.settings.pop(model, None))

    def hand_over(self) -> Any:
        """Return what ``on_unload`` gives to the next generation, None without that hook.

        Raises:
            StateNotHandedOverError: the hook fails.
        """
        on_unload = self.code.on_unload
        if on_unload is None:
            return None
        try:
            return call_sync_hook(self.owner, "on_unload", on_unload, limit=self._settings.hook_timeout)
        except PluginError as error:
            raise StateNotHandedOverError(plugin=self.plugin, cause=error) from error

    async def enable(self, state: Any = None) -> None:
        """Enter the routers' lifespans, run ``on_enable`` and ask for its health; on any error everything is undone.

        ``state`` is what :meth:`hand_over` gave, for a generation that was disabled after it.
        """
        self.is_settled = False
        try:
            if not self.is_set_up:
                self._set_up(state)
            lifespan = PluginLifespan(self._app, self.owner, self.code.routers, self._settings.hook_timeout)
            self.mount.ends_streams = False
            self.mount.lifespan_state = await lifespan.start()
            self._lifespan = lifespan
            if self.code.on_enable is not None:
                with recording(self._app, self.owner):
                    await call_hook(self.owner, "on_enable", self.code.on_enable, limit=self._settings.hook_timeout)
            await self._check_health()
        except BaseException:
            await self._take_down()
            raise
        self.is_settled = True

    async def _check_health(self) -> None:
        """Ask ``health()``, where it is offered: a false answer other than None, or an exception, is a failure."""
        if self.code.health is None:
            return
        answer = await call_hook(self.owner, "health", self.code.health, limit=self._settings.hook_timeout)
        if answer is not None and not answer:
            raise UnhealthyPluginError(plugin=self.plugin, answer=repr(answer))

    # --- down -------------------------------------------------------------------------------------

    def withdraw(self) -> None:
        """Stop hearing events and take routes off the app, at once; the rest goes with :meth:`disable`."""
        self.owner.ledger.undo("subscription", "route")

    async def disable(self) -> LeakReport:
        """Drain, run ``on_disable``, undo everything; return what was undone and what went wrong or is left.

        The routes must be unpublished before, so that no new request comes in.
        """
        self.is_settled = False
        requests = await self.mount.drain(self._settings.drain_timeout, end_streams=self._settings.end_streams)
        leaks = [Leak("request", name, "was not answered in time") for name in requests]
        if self.code.on_disable is not None:
            try:
                await call_hook(self.owner, "on_disable", self.code.on_disable, limit=self._settings.hook_timeout)
            except PluginError as error:
                leaks.append(Leak("hook", "on_disable", str(error)))
        report = await self._take_down()
        return LeakReport(self.plugin, report.undone, (*leaks, *report.leaks, *find_threads(self.owner.directory)))

    async def discard(self) -> None:
        """Give up a generation that never served: undo all that it did, as far as it came, and let go of its code."""
        if self._mount is not None:
            await self._take_down()
        self.unload()

    async def _take_down(self) -> LeakReport:
        leaks: list[Leak] = []
        if self._lifespan is not None:
            try:
                await self._lifespan.stop()
            except PluginError as error:
                leaks.append(Leak("hook", "lifespan", str(error)))
            self._lifespan = None
            self.mount.lifespan_state = {}
        cancelled, alive = await self.owner.ledger.cancel_tasks(self._settings.task_timeout)
        undone, stubborn = self._undo()
        self.is_settled = True
        return LeakReport(self.plugin, (*cancelled, *undone), (*leaks, *alive, *stubborn))

    def _undo(self) -> tuple[tuple[str, ...], tuple[Leak, ...]]:
        """Undo every registration, with the plugin as the running code (an undo may be its own)."""
        self.is_set_up = False
        with running_as(self.owner, Entry.HOOK):
            return self.owner.ledger.undo()

    def unload(self) -> None:
        """Undo every registration and let go of the code; tasks are cancelled, not waited for."""
        for task in self.owner.ledger.tasks:
            task.get_loop().call_soon_threadsafe(task.cancel)
        if self._lifespan is not None:
            self._lifespan.cancel()
            self._lifespan = None
        self._undo()
        self.owner.ledger.release()
        routers = self._code.routers if self._code is not None else ()
        self.owner.app.remains.watch(self.plugin, self.owner.generation, self._modules, routers)
        self._code = self._mount = None
        forget(self._modules)
        self._modules = {}
        self.is_settled = True
        drop_caches()
        release_timers(self.owner.app.loop)


def _takes_state(on_load: Any) -> bool:
    """Tell whether ``on_load(app, state=None)`` wants what the older generation hands over."""
    try:
        parameters = inspect.signature(on_load).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    return len(positional) > 1 or any(each.kind is each.VAR_POSITIONAL for each in parameters)
