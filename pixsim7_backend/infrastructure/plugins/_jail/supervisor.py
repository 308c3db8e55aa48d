"""Keeps the jail of one plugin generation running: starts it, watches it, starts it again, and knows when to stop."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.exceptions import HTTPException

from .broker import Broker
from .channel import Channel
from .errors import JailCallError, JailGoneError, JailProtocolError
from .loading import Launcher, Loading, epitaph_of
from .process import JailProcess
from .spec import JailSpec
from .supervision import Crash, Crashes, SupervisorSettings

__all__ = ["JailSupervisor"]

logger = logging.getLogger("pixsim7.plugins.jail")


class _Phase(enum.Enum):
    """Where the jail is, as far as a request is concerned."""

    OFF = "off"
    UP = "up"
    STARTING = "starting"
    IDLE = "idle"
    GIVEN_UP = "given up"


@dataclass(slots=True)
class _Life:
    """One process, and what belongs to it."""

    process: JailProcess
    channel: Channel
    broker: Broker
    lost: asyncio.Future[Exception | None]
    since: float


class JailSupervisor:
    """One generation's jail, over as many processes as it takes.

    Args:
        plugin: its id, for texts.
        spec: what each process is started with.
        launcher: starts them.
        settings: how patient to be.
        make_broker: gives a new process's broker, to which its calls go; it is told of whom, and how to reply.
        on_log: is given each line of the jail: level, logger, text.
        find_settings: returns the plugin's settings in force; None before there are any.
        on_up: is called when the plugin has been enabled in a process.
        on_rest: is called before a process is ended that nobody needs; what it listens to will start the next one.
        on_crash: is told of each crash.
        on_given_up: is told once that there were too many.
        find_excess: looks at a process and returns why it has to be ended, like a scratch directory that is full.
    """

    def __init__(
        self,
        plugin: str,
        spec: JailSpec,
        launcher: Launcher,
        settings: SupervisorSettings,
        *,
        make_broker: Callable[[JailProcess, Callable[[int, bool, Any], None]], Broker],
        on_log: Callable[[int, str, str], None],
        find_settings: Callable[[], Mapping[str, Any] | None] = lambda: None,
        on_up: Callable[[], None] = lambda: None,
        on_rest: Callable[[], None] = lambda: None,
        on_crash: Callable[[Crash], None] = lambda _: None,
        on_given_up: Callable[[tuple[Crash, ...]], None] = lambda _: None,
        find_excess: Callable[[JailProcess], str | None] = lambda _: None,
    ) -> None:
        self.plugin = plugin
        self.crashes = Crashes(settings)
        self.subscriptions: tuple[str, ...] = ()
        """The events that the plugin listens to, as of its last start, or as it was loaded."""
        self.starts = 0
        self._loading = Loading(spec, launcher, settings, on_log, find_settings)
        self._settings = settings
        self._make_broker = make_broker
        self._on_log = on_log
        self._on_up = on_up
        self._on_rest = on_rest
        self._on_crash = on_crash
        self._on_given_up = on_given_up
        self._find_excess = find_excess
        self._phase = _Phase.OFF
        self._life: _Life | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._asked_for = asyncio.Event()
        self._used_at = 0.0
        self._questions = 0

    # --- from the outside -----------------------------------------------------------------------------

    @property
    def phase(self) -> str:
        """Whether it is up, for people."""
        return self._phase.value

    @property
    def process(self) -> JailProcess | None:
        """The process that runs now."""
        return self._life.process if self._life is not None else None

    def load(self, settle: Callable[[Any], Mapping[str, Any] | None] = lambda _: None) -> Mapping[str, Any]:
        """Let a process load the plugin; return what it serves. Blocks; see :meth:`Loading.load`."""
        answer = self._loading.load(settle)
        self.subscriptions = _parse_events(answer.get("events", []))
        return answer

    def ask_from_thread(self, *question: Any) -> Any:
        """Ask the jail, in service or not, for something of the plugin's code. Blocks.

        One that is not in service is asked in the process that waits, or else in one that is started for that. So
        is one in service where this is its event loop's thread, which would wait for itself.

        Raises:
            JailCallError, JailGoneError, JailProtocolError, TimeoutError: as :meth:`load`.
        """
        keeper = self._keeper
        if keeper is None or keeper.done() or keeper.get_loop() is _find_running_loop():
            return self._loading.ask(*question)
        asked = asyncio.run_coroutine_threadsafe(self.ask(*question), keeper.get_loop())
        try:
            return asked.result(self._settings.hook_time)
        except TimeoutError:
            asked.cancel()
            raise TimeoutError(f"it did not answer within {self._settings.hook_time:g} s") from None
        except HTTPException as error:
            raise JailGoneError(error.detail) from error

    async def configure(self, settings: Mapping[str, Any]) -> None:
        """Let the jail put settings in force; one that does not run gets them when it starts.

        Raises:
            JailCallError, JailGoneError, JailProtocolError, TimeoutError: as :meth:`load`.
        """
        if self._phase not in (_Phase.UP, _Phase.STARTING):
            self._loading.discard()  # what waits was loaded with the former ones
            return
        try:
            async with asyncio.timeout(self._settings.hook_time):
                await self.ask("configure", settings)
        except HTTPException as error:
            raise JailGoneError(error.detail) from error

    async def start(self) -> None:
        """Enable the plugin, in the process that loaded it or in a new one; from now on it is kept running.

        A lazy one waits for whoever needs it.

        Raises:
            JailCallError: the plugin cannot be enabled.
            JailGoneError, JailProtocolError: as :meth:`load`.
            TimeoutError: it took too long.
        """
        self._ready.clear()
        self._asked_for.clear()
        if self._settings.is_lazy:
            self._phase = _Phase.IDLE
        else:
            self._phase = _Phase.STARTING
            try:
                await self._bring_up()
            except BaseException:
                self._phase = _Phase.OFF
                self.discard()  # also what a thread is still starting
                raise
        self._keeper = asyncio.create_task(self._keep(), name=f"keeping {self.plugin}")

    async def stop(self) -> Mapping[str, Any] | None:
        """Disable the plugin and end its process; return its leak report, None when it had nothing to say."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
            self._keeper = None
        life, self._phase = self._life, _Phase.OFF
        self._ready.set()  # nobody waits for what does not come
        report = await self._disable(life) if life is not None else None
        await self._bring_down()
        self.discard()
        return report

    def discard(self) -> None:
        """End a process that was loaded and never started, and whatever runs; nothing is awaited."""
        if self._keeper is not None:
            self._keeper.get_loop().call_soon_threadsafe(self._keeper.cancel)
        self._loading.discard()
        if self._life is not None:
            self._life.channel.close()
            self._life.process.kill()

    async def connect(self) -> Channel:
        """Return the channel of the running jail, waiting a while for one that is being started.

        Raises:
            HTTPException: 503, there is none now; with ``Retry-After`` where there will be one.
        """
        self._used_at = time.monotonic()
        if self._phase is not _Phase.UP:
            self._asked_for.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.patience):
                    await self._ready.wait()
        if self._phase is not _Phase.UP or self._life is None:
            raise self._unavailable()
        return self._life.channel

    async def ask(self, method: str, *args: Any) -> Any:
        """Ask the running jail for something; errors as :meth:`Channel.ask` and :meth:`connect`."""
        channel = await self.connect()
        self._questions += 1
        try:
            return await channel.ask(method, *args)
        finally:
            self._questions -= 1
            self._used_at = time.monotonic()

    def _unavailable(self) -> HTTPException:
        if self._phase is _Phase.GIVEN_UP:
            return HTTPException(503, f"plugin {self.plugin!r} has crashed too often and is not started again")
        if self._phase is _Phase.OFF:
            return HTTPException(503, f"plugin {self.plugin!r} is not running")
        headers = {"Retry-After": str(max(1, round(self.crashes.pause())))}
        return HTTPException(503, f"plugin {self.plugin!r} is being started", headers)

    # --- one process ------------------------------------------------------------------------------------

    async def _bring_up(self) -> None:
        process, greeting = self._loading.take() or await self._loading.start()
        lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        channel = Channel(
            on_call=lambda *call: broker.take(*call),  # noqa: PLW0108 - it is made below
            on_log=self._on_log,
            on_lost=lambda error: self._lost(lost, error),
        )
        broker = self._make_broker(process, channel.answer_call)
        self._life = _Life(process, channel, broker, lost, time.monotonic())
        try:
            await channel.open(process.connection, greeting)
            async with asyncio.timeout(self._settings.hook_time):
                events = await channel.ask("enable")
            self.subscriptions = _parse_events(events)
        except BaseException as error:
            process.kill()
            epitaph = ""
            if isinstance(error, JailGoneError):
                epitaph = await asyncio.to_thread(epitaph_of, "it ended while it was enabled", process)
            await self._bring_down()
            if epitaph:
                raise JailGoneError(epitaph) from error
            raise
        self.starts += 1
        self._used_at = time.monotonic()
        self._phase = _Phase.UP
        self._ready.set()
        self._on_up()

    async def _disable(self, life: _Life) -> Mapping[str, Any] | None:
        """Disable the plugin in its process; return its leak report."""
        with contextlib.suppress(JailCallError, JailGoneError, JailProtocolError, TimeoutError):
            async with asyncio.timeout(self._settings.hook_time):
                report = await life.channel.ask("disable")
                return report if isinstance(report, dict) else None
        return None

    def _lost(self, lost: asyncio.Future[Exception | None], error: Exception | None) -> None:
        """The process is gone: from this moment on, requests wait for the next one."""
        if self._life is not None and self._life.lost is lost and self._phase is _Phase.UP:
            self._phase = _Phase.STARTING
            self._ready.clear()
        if not lost.done():
            lost.set_result(error)

    async def _bring_down(self) -> None:
        """End the process and what belongs to it, to the end even when this is cancelled."""
        life, self._life = self._life, None
        if life is not None:
            life.channel.close()
            life.process.kill()
            await asyncio.shield(self._bury(life))

    async def _bury(self, life: _Life) -> None:
        await life.broker.close()
        await asyncio.to_thread(life.process.wait, self._settings.death_time)
        life.process.close()

    # --- over and over ----------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Watch the process; when it ends, or one is needed, start another one, until there were too many crashes."""
        while True:
            if self._life is not None:
                await self._see_the_end(self._life)
            if self._phase is _Phase.IDLE:
                await self._asked_for.wait()
            if not await self._try_again():
                return

    async def _see_the_end(self, life: _Life) -> None:
        why = await self._watch(life)
        self._ready.clear()
        self._asked_for.clear()
        if why is None:
            self._phase = _Phase.IDLE
            self._on_rest()
            await self._disable(life)
        else:
            self._phase = _Phase.STARTING
            self._note_crash(why, life)
        await self._bring_down()

    async def _try_again(self) -> bool:
        """Start a process, again and again; tell whether one is up."""
        while not self.crashes.is_hopeless:
            self._phase = _Phase.STARTING
            await asyncio.sleep(self.crashes.pause())
            try:
                await self._bring_up()
            except (JailCallError, JailGoneError, JailProtocolError, TimeoutError, OSError) as error:
                self._note_crash(f"it did not start: {error}", None)
                await self._bring_down()
            else:
                return True
        self._phase = _Phase.GIVEN_UP
        self._ready.set()
        self._on_given_up(tuple(self.crashes))
        return False

    async def _watch(self, life: _Life) -> str | None:
        """Wait for the end of a process; return how it ended, None when nobody needs it."""
        question: asyncio.Task[Any] | None = None
        missed = 0
        try:
            while not life.lost.done():
                await asyncio.wait([life.lost], timeout=self._settings.heartbeat)
                if life.lost.done():
                    break
                if self._is_idle(life):
                    return None
                if excess := await asyncio.to_thread(self._find_excess, life.process):
                    return excess
                missed = missed + 1 if question is not None and not question.done() else 0
                if missed >= self._settings.missed_heartbeats:
                    return f"its event loop has stood still for {missed * self._settings.heartbeat:g} s"
                if question is None or question.done():
                    question = asyncio.create_task(_ask_for_life(life.channel), name=f"asking {self.plugin} for life")
        finally:
            if question is not None:
                question.cancel()
        error = life.lost.result()
        if isinstance(error, JailProtocolError):
            return f"it misbehaved: {error}"
        await asyncio.to_thread(life.process.wait, self._settings.death_time)
        return life.process.describe_exit()

    def _is_idle(self, life: _Life) -> bool:
        limit = self._settings.idle_stop
        is_busy = life.channel.streams or self._questions
        return limit is not None and not is_busy and time.monotonic() - self._used_at >= limit

    def _note_crash(self, why: str, life: _Life | None) -> None:
        lived, stderr = 0.0, ""
        if life is not None:
            lived, stderr = time.monotonic() - life.since, life.process.stderr_tail()
            life.process.kill()
        logger.error("Plugin %s crashed: %s", self.plugin, why)
        self._on_crash(self.crashes.note(why, stderr, lived=lived))


def _find_running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _parse_events(events: Any) -> tuple[str, ...]:
    if not (isinstance(events, list) and all(isinstance(each, str) for each in events)):
        raise JailProtocolError("the events that it listens to are none")
    return tuple(events)


async def _ask_for_life(channel: Channel) -> None:
    with contextlib.suppress(JailCallError, JailGoneError, JailProtocolError):
        await channel.ask("ping")
