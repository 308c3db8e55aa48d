"""The trials of a plugin in a private app: it is brought up, asked, taken down, broken and replaced."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pixsim7_backend.infrastructure.plugins import PluginError, PluginManager, PluginState
from pixsim7_backend.infrastructure.plugins._dispatch.openapi import fragment_of
from pixsim7_backend.infrastructure.plugins._settings.form import ModelForm
from pixsim7_backend.infrastructure.plugins._settings.layers import SettingsSources
from pixsim7_backend.infrastructure.plugins._settings.plugin import SettingsBook
from pixsim7_backend.infrastructure.plugins.errors import (
    HookTimeoutError,
    PluginHookError,
    PluginSettingsError,
    UnhealthyPluginError,
)

from .schema import check_schema, check_shadowed, paths_without_input
from .stage import Cast, ConformanceHost, make_manager
from .traces import Traces, left_behind, take_traces
from .verdicts import Finding, warning

if TYPE_CHECKING:
    import httpx

_AT_ONCE = 8
_ROUNDS = 3
_PATIENCE = 5.0
"""Seconds that an answer may take before it counts as a stream."""


@dataclass(slots=True)
class Trial:
    """One plugin on trial; each method is one check and returns its findings.

    In this order: ``load``, ``enable``, the others, ``close``.
    """

    cast: Cast
    host: ConformanceHost
    manager: PluginManager
    client: httpx.AsyncClient
    note: str = ""
    before: Traces | None = None
    error: PluginError | None = None
    streams: set[str] = field(default_factory=set)
    """Paths whose answers begin, and go on: what is sent as it happens."""
    stopped: list[Finding] = field(default_factory=list)
    """What was found when it was disabled."""
    quiet_paths: list[str] = field(default_factory=list)
    """Paths whose GET needs no input and ends at once."""

    @classmethod
    def begin(cls, cast: Cast, host: ConformanceHost) -> Trial:
        import httpx  # brings a command line of its own, which only a trial needs to wait for

        manager = make_manager(cast, host)
        transport = httpx.ASGITransport(app=_observed(manager.app))
        client = httpx.AsyncClient(transport=transport, base_url="http://plugins.test")
        return cls(cast=cast, host=host, manager=manager, client=client)

    @property
    def plugin(self) -> str:
        return self.cast.plugin.id

    async def close(self) -> None:
        """Stop everything; a second call does nothing more."""
        await self.client.aclose()
        await self.manager.disable_all()
        self.manager.close()

    # --- up ---------------------------------------------------------------------------------------

    async def load(self) -> list[Finding]:
        """Start what the plugin requires, then add the plugin, as a running server does."""
        self.manager.load_all()
        await self.manager.enable_all()
        held = self.manager.plan().held
        if held:
            way = "put them right first"
            return [Finding(what=f"what it requires does not run: {each}", way_out=way) for each in held.values()]
        self.before = take_traces(self.manager)
        try:
            await self._start()
        except PluginError as error:
            self.error = error
        return [Finding(what=str(self.error))] if self.error and not _is_of_enabling(self.error) else []

    async def _start(self) -> None:
        try:
            await self.manager.refresh(self.cast.folder)
        except PluginError as error:
            if error.state is not PluginState.DISABLED:
                raise
            self.note = "its manifest says `enabled=False`; it was enabled for the trial"
            await self.manager.enable(self.plugin)

    async def enable(self) -> list[Finding]:
        """Tell how its start ended."""
        if self.error is not None:
            return [Finding(what=str(self.error))]
        if self.host.sign_in is not None:
            self.client.headers.update(await self.host.sign_in(self.client))
        return []

    # --- while it serves ----------------------------------------------------------------------------

    async def openapi(self) -> list[Finding]:
        """Look at its part of the schema."""
        generation = self.manager._plugins.generations[self.plugin]
        fragment = fragment_of(self.manager.app, generation.mount)
        paths = json.loads(b"{" + fragment.joined + b"}")
        schemas = json.loads(b"{" + fragment.schemas + b"}")
        self.quiet_paths = paths_without_input(paths)
        tags = generation.code.manifest.tags or (self.plugin,)
        self.note = f"paths: {len(paths)}, schemas: {len(schemas)}"
        shadowed = check_shadowed((claim.method, claim.path, claim.where) for claim in generation.mount.iter_routes())
        return shadowed + check_schema(paths, schemas, tags=tags, qualifier=fragment.plugin)

    async def requests(self) -> list[Finding]:
        """Ask every path that needs no input, many times at once."""
        found: list[Finding] = []
        count = 0
        for path in list(self.quiet_paths):
            for _ in range(_ROUNDS):
                with _logged_errors() as errors:
                    answers = await asyncio.gather(*(self.ask(path) for _ in range(_AT_ONCE)))
                count += len(answers)
                if path in self.streams:
                    self.quiet_paths.remove(path)
                    break
                problem = next((answer for answer in answers if answer is not None), None)
                if problem is not None:
                    found.append(self._raised(path, errors[0]) if errors else problem)
                    self.quiet_paths.remove(path)
                    break
        streams = f", streams: {len(self.streams)}" if self.streams else ""
        self.note = f"requests: {count}, paths without input: {len(self.quiet_paths)}{streams}"
        return found

    async def ask(self, path: str) -> Finding | None:
        """Send one request; return what was wrong with the answer."""
        where = f"GET {path}"
        begun: list[int] = []
        _begun.set(begun)
        try:
            answer = await asyncio.wait_for(self.client.get(path), _PATIENCE)
        except TimeoutError:
            if any(status < 500 for status in begun):
                self.streams.add(path)
                return None
            way = "answer sooner, and do slow work in a task"
            return warning(f"did not begin to answer within {_PATIENCE:g} s", where=where, way_out=way)
        except Exception as error:  # noqa: BLE001 - whatever the plugin's endpoint raises is the finding
            return self._raised(path, error)
        if answer.status_code >= 500:
            return Finding(what=f"answered {answer.status_code}: {answer.text[:200]}", where=where)
        return None

    def _raised(self, path: str, error: BaseException) -> Finding:
        return Finding(what=f"{type(error).__name__}: {error}", where=f"GET {path}, {self._place(error)}")

    def _place(self, error: BaseException) -> str:
        directory = os.path.join(self.cast.folder, "")  # noqa: PTH118  # with the separator
        frames = [each for each in traceback.extract_tb(error.__traceback__) if each.filename.startswith(directory)]
        return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "outside the plugin"

    # --- down ---------------------------------------------------------------------------------------

    async def disable(self) -> list[Finding]:
        """Disable it and look for what is left; enable it again."""
        self.stopped = await self._stop()
        found = list(self.stopped)
        try:
            await self.manager.enable(self.plugin)
        except PluginError as error:
            found.append(Finding(what=f"it cannot be enabled a second time: {error}"))
        return found

    async def _stop(self) -> list[Finding]:
        report = await self.manager.disable(self.plugin)
        found = [
            Finding(what=str(leak), way_out="" if leak.kind == "hook" else "undo it in on_disable")
            for leak in report.leaks
        ]
        assert self.before is not None, "load comes first"
        return found + left_behind(self.before, take_traces(self.manager))

    async def failing_start(self) -> list[Finding] | None:
        """Let its start fail after everything else has been done, and look for what else than disabling that leaves.

        None: what disabling left was so bad that its code was given up.
        """
        await self._stop()
        if self.plugin not in self.manager._plugins.generations:
            return None
        found: list[Finding] = []
        try:
            with self._unhealthy():
                await self.manager.enable(self.plugin)
        except UnhealthyPluginError:
            pass
        except PluginError as error:
            found.append(Finding(what=f"it failed otherwise than it was made to: {error}"))
        assert self.before is not None, "load comes first"
        left = left_behind(self.before, take_traces(self.manager))
        found += [each for each in left if each not in self.stopped]
        try:
            await self.manager.enable(self.plugin)
        except PluginError as error:
            found.append(Finding(what=f"after a start that failed it cannot be enabled any more: {error}"))
        self.note = "" if found else "everything it had registered was undone"
        return found

    # --- its settings -------------------------------------------------------------------------------

    @property
    def has_settings(self) -> bool:
        return self.manager._plugins.generations[self.plugin].code.settings_model is not None

    async def settings(self) -> list[Finding]:
        """See what comes of having no settings at all, and of each one being of a wrong kind."""
        model = self.manager._plugins.generations[self.plugin].code.settings_model
        assert model is not None, "ask has_settings first"
        self.note = "none is required"
        try:
            SettingsBook(SettingsSources(), lambda _: {}).resolve(self.plugin, ModelForm(self.plugin, model))
        except PluginSettingsError as error:
            self.note = f"required: {', '.join(error.fields['settings'])}"
        before = self.manager.view_settings(self.plugin)
        found = [finding for name in model.model_fields for finding in await self._refuses(name)]
        if self.manager.view_settings(self.plugin).values != before.values:
            found.append(Finding(what="wrong settings replaced the ones in force"))
        return found

    async def _refuses(self, name: str) -> list[Finding]:
        """Try to set what cannot be right."""
        try:
            await self.manager.preview_settings(self.plugin, {name: {"no": ["such", "value"]}})
        except PluginSettingsError:
            return []
        way = "give it a type that says what is right"
        return [warning(f"setting {name!r} takes any value", way_out=way)]

    @contextmanager
    def _unhealthy(self) -> Iterator[None]:
        """Let ``health()``, which is asked when everything else is done, say no."""
        generation = self.manager._plugins.generations[self.plugin]
        code = generation.code
        generation._code = replace(code, health=lambda: False)
        try:
            yield
        finally:
            if generation._code is not None:  # it failed before its code was given up
                generation._code = code


_begun: ContextVar[list[int]] = ContextVar("begun")
"""The status of the answer to the request under way, once it has begun."""


def _observed(app: ASGIApp) -> ASGIApp:
    """Note when an answer begins; httpx gives it only when it has ended."""

    async def observed(scope: Scope, receive: Receive, send: Send) -> None:
        async def note(message: Message) -> None:
            if message["type"] == "http.response.start" and (begun := _begun.get(None)) is not None:
                begun.append(message["status"])
            await send(message)

        await app(scope, receive, note)

    return observed


@contextmanager
def _logged_errors() -> Iterator[list[BaseException]]:
    """Collect the exceptions that are logged inside: a host may answer for them without letting them out."""
    errors: list[BaseException] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[1] is not None:
                errors.append(record.exc_info[1])

    collector = Collector()
    logging.root.addHandler(collector)
    try:
        yield errors
    finally:
        logging.root.removeHandler(collector)


def _is_of_enabling(error: PluginError) -> bool:
    """Tell whether the plugin was loaded before this went wrong."""
    is_hook = isinstance(error, (PluginHookError, HookTimeoutError))
    return isinstance(error, UnhealthyPluginError) or (is_hook and error.fields["hook"] != "on_load")
