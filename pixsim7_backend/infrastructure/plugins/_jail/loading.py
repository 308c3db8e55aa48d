"""The processes of a jail that are not in service: in which a plugin is loaded, and is asked about itself."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

from .errors import JailGoneError
from .handshake import Greeting, greet
from .keeper import LaunchError
from .process import JailProcess
from .spec import JailSpec
from .supervision import SupervisorSettings

__all__ = ["Launcher", "Loading", "epitaph_of"]


class Launcher(Protocol):
    """Starts jails; may block."""

    def spawn(self, spec: JailSpec) -> JailProcess:
        """Start a jail and return it, before it has said anything."""


class Loading:
    """Starts processes, lets them load the plugin, and keeps the latest one until it is taken into service.

    Args:
        spec: what each process is started with.
        launcher: starts them.
        settings: how patient to be.
        on_log: is given each line of the jail: level, logger, text.
        find_settings: returns the plugin's settings in force; None before there are any.
    """

    def __init__(
        self,
        spec: JailSpec,
        launcher: Launcher,
        settings: SupervisorSettings,
        on_log: Callable[[int, str, str], None],
        find_settings: Callable[[], Mapping[str, Any] | None],
    ) -> None:
        self._spec = spec
        self._launcher = launcher
        self._settings = settings
        self._on_log = on_log
        self._find_settings = find_settings
        self._waiting: tuple[JailProcess, Greeting] | None = None

    def load(self, settle: Callable[[Any], Mapping[str, Any] | None]) -> Mapping[str, Any]:
        """Start a process and let it load the plugin; return what it serves. Blocks.

        Of a plugin with settings ``settle`` is given their schema, and returns the settings. Where it returns None,
        or the plugin refuses them, it is not loaded; its process waits for questions about others. A lazy one is
        ended when it is loaded.

        Raises:
            JailCallError: the plugin cannot be loaded.
            JailGoneError, JailProtocolError: the jail ended, or misbehaved.
        """
        process, greeting = self._waiting = self._launch()
        answer = greeting.answer
        if "settings" in answer and (settings := settle(answer["settings"])) is not None:
            answer = self.ask("load", settings)
        if self._settings.is_lazy and "routes" in answer:
            self.discard()
            process.wait(self._settings.death_time)
        return dict(answer)

    def take(self) -> tuple[JailProcess, Greeting] | None:
        """Return the process that waits, and what it answered; None where there is none."""
        waiting, self._waiting = self._waiting, None
        return waiting

    async def start(self) -> tuple[JailProcess, Greeting]:
        """Return another process that has loaded the plugin; one that nobody waits for any more is ended.

        Raises:
            JailCallError, JailGoneError, JailProtocolError: as :meth:`load`.
        """
        thread = ThreadPoolExecutor(1, "starting a jail")
        launching = thread.submit(contextvars.copy_context().run, self._launch)
        thread.shutdown(wait=False)
        try:
            return await asyncio.wrap_future(launching)
        except asyncio.CancelledError:  # also where the loop ends meanwhile
            launching.add_done_callback(_end)
            raise

    def ask(self, *question: Any) -> dict[str, Any]:
        """Ask for something of the plugin's code, the process that waits, or one that is started for that. Blocks.

        Raises:
            JailCallError, JailGoneError, JailProtocolError: as :meth:`load`.
        """
        if (waiting := self.take()) is not None:
            self._waiting = waiting[0], self._question(*waiting, *question)
            return self._waiting[1].answer
        process = self._spawn()
        try:
            return self._question(process, self._question(process, None, "load"), *question).answer
        finally:
            process.close()

    def discard(self) -> None:
        """End the process that waits."""
        if (waiting := self.take()) is not None:
            waiting[0].close()

    def _launch(self) -> tuple[JailProcess, Greeting]:
        """Start a process and let it load the plugin with the settings in force; without any, if it needs none."""
        process, settings = self._spawn(), self._find_settings()
        return process, self._question(process, None, "load", *([settings] if settings is not None else []))

    def _spawn(self) -> JailProcess:
        try:
            return self._launcher.spawn(self._spec)
        except LaunchError as error:
            raise JailGoneError(str(error)) from error

    def _question(self, process: JailProcess, before: Greeting | None, *question: Any) -> Greeting:
        """Ask a process; where that goes wrong, it is ended."""
        limit = self._settings.load_time
        try:
            return greet(process.connection, limit=limit, on_log=self._on_log, question=question, after=before)
        except BaseException as error:
            process.kill()
            epitaph = epitaph_of(str(error), process)
            process.close()
            if isinstance(error, JailGoneError):
                raise JailGoneError(epitaph) from error
            raise


def _end(launching: Future[tuple[JailProcess, Greeting]]) -> None:
    if not launching.cancelled() and launching.exception() is None:
        launching.result()[0].close()


def epitaph_of(what: str, process: JailProcess) -> str:
    """Return how a process ended, with the last that it said."""
    process.wait(1.0)
    said = process.stderr_tail().strip()
    return f"{what} ({process.describe_exit()})" + (f"; it wrote: {said}" if said else "")
