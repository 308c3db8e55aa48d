"""All checks of one plugin, in order; an earlier failure leaves those untried that build on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from pixsim7_backend.infrastructure.plugins import PluginState
from pixsim7_backend.infrastructure.plugins._code.imports import check_imports
from pixsim7_backend.infrastructure.plugins.errors import PluginError, PluginStartupError, UndeclaredImportError

from .reloads import replace_again
from .source import check_blocking, check_events, check_manifest, iter_emissions
from .stage import Cast, ConformanceHost, gather
from .trials import Trial
from .verdicts import CheckResult, Finding, Report, complete, inapplicable, result_of

__all__ = ["ConformanceHost", "check_plugin"]

Progress = Callable[[str, Sequence[CheckResult]], None]
"""Gets the name of the check that comes next and the results so far."""

RELOADS = 20


async def check_plugin(
    folder: Path,
    *,
    directories: Sequence[Path] = (),
    host: ConformanceHost | None = None,
    reloads: int = RELOADS,
    progress: Progress | None = None,
) -> Report:
    """Try out the plugin in ``folder`` and return what was found; its code runs in this process.

    Args:
        folder: the plugin's folder, absolute.
        directories: where its dependencies are, besides its neighbours.
        host: what the plugins get of their host.
        reloads: how often it is replaced.
        progress: told before each check.

    Raises:
        MissingManifestError: there is no plugin in the folder.
        PluginDirectoryError: a directory cannot be read.
    """
    run = _Run(gather(folder, directories), host or ConformanceHost(), reloads, progress)
    await run.everything()
    return Report(plugin=run.cast.plugin.id, folder=str(folder), results=complete(run.results))


class _Run:
    """One run: the results so far, and whether the plugin is fit for what comes next."""

    def __init__(self, cast: Cast, host: ConformanceHost, reloads: int, progress: Progress | None) -> None:
        self.cast = cast
        self.results: list[CheckResult] = []
        self._host = host
        self._reloads = reloads
        self._progress = progress

    async def everything(self) -> None:
        self._read()
        if self.cast.plugin.error is None:
            await self._try_out()

    def _begin(self, check: str) -> None:
        if self._progress is not None:
            self._progress(check, self.results)

    # --- its text -----------------------------------------------------------------------------------

    def _read(self) -> None:
        plugin, trees = self.cast.plugin, self.cast.trees()
        self._begin("manifest")
        found = check_manifest(plugin)
        if plugin.manifest is not None:
            found += self._host.check_permissions(plugin)
        self.results.append(result_of("manifest", found))
        if plugin.manifest is None:
            return
        self.results.append(result_of("imports", self._imports()))
        if plugin.manifest.events or any(iter_emissions(trees)):
            self.results.append(result_of("events", check_events(trees, plugin.manifest.events)))
        else:
            self.results.append(inapplicable("events", "it declares and emits none"))
        self.results.append(result_of("blocking", check_blocking(trees)))

    def _imports(self) -> list[Finding]:
        plugin = self.cast.plugin
        declared = [each.plugin for each in plugin.manifest.requirements] if plugin.manifest else []
        try:
            check_imports(plugin.id, plugin.source, declared, self.cast.packages)
        except UndeclaredImportError as error:
            return [Finding(what=str(error))]
        return []

    # --- its behaviour ------------------------------------------------------------------------------

    async def _try_out(self) -> None:
        trial = Trial.begin(self.cast, self._host)
        try:
            if not await self._check("load", trial, trial.load) or not await self._check("enable", trial, trial.enable):
                return
            await self._check("openapi", trial, trial.openapi)
            await self._check("requests", trial, trial.requests)
            if trial.has_settings:
                await self._check("settings", trial, trial.settings)
            else:
                self.results.append(inapplicable("settings", "it has none"))
            self._migrate()
            await self._check("disable", trial, trial.disable)
            await self._check("failing start", trial, trial.failing_start)
            if trial.manager.get(trial.plugin).state is PluginState.ENABLED:
                await self._replace(trial)
        finally:
            await trial.close()

    async def _check(self, name: str, trial: Trial, find: Callable[[], Awaitable[list[Finding] | None]]) -> bool:
        """Run one check and keep its result, if it could be tried; tell whether it found nothing that fails."""
        self._begin(name)
        trial.note = ""
        try:
            found = await find()
        except PluginStartupError as error:
            found = [Finding(what=f"what it requires does not run: {error}", way_out="put that right first")]
        except PluginError as error:
            found = [Finding(what=str(error))]
        if found is not None:
            self.results.append(result_of(name, found, trial.note))
        return found == []

    async def _replace(self, trial: Trial) -> None:
        self._begin("reload")
        came = await replace_again(trial, self._reloads)
        self.results.append(result_of("reload", came.findings, f"reloads: {came.done}"))
        if came.done:
            self.results.append(result_of("leaks", came.leaks, came.growth_note))

    # --- its tables ---------------------------------------------------------------------------------

    def _migrate(self) -> None:
        self._begin("migrations")
        manifest, folder = self.cast.plugin.manifest, self.cast.plugin.source.path
        if manifest and "db:own" in manifest.permissions and not (folder / "migrations").is_dir():
            self.results.append(inapplicable("migrations", "it makes its own tables itself (db:own)"))
            return
        check = self._host.check_migrations
        plugins = [(each.id, each.source.path) for each in (*self.cast.required, self.cast.plugin)]
        found = check(plugins) if check is not None else None
        if found is None:
            why = "it has no tables" if check is not None else "the host brings no database"
            self.results.append(inapplicable("migrations", why))
        else:
            self.results.append(result_of("migrations", found))
