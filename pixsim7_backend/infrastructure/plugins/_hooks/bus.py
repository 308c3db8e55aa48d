"""The hook bus: handlers by event, each isolated, owned and under a deadline."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Protocol, overload

from pixsim7_backend.infrastructure.plugins._ledger.ownership import AppKey, Entry, Owner, Running, current_app, running

from .after_commit import AfterCommit

logger = logging.getLogger("pixsim7.plugins")

Handler = Callable[..., Any]
#: A subscription with what the emit loop needs of it, side by side because that loop is hot.
_Listener = tuple["Subscription", Handler, bool, Running]
_EVENT_NAME = re.compile(r"[a-z][a-z0-9_-]*:[a-z][a-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class HandlerFailure:
    """A handler that raised or overran: whose it is, which one, and the error."""

    plugin: str | None
    handler: str
    error: BaseException

    def __str__(self) -> str:
        return f"{self.handler} of {self.plugin or 'the host'}: {type(self.error).__name__}: {self.error}"


class HandlerTimeoutError(TimeoutError):
    """A handler ran longer than handlers may."""


FailureWatcher = Callable[[Owner | None, HandlerFailure], None]


class Outcome(Sequence[Any]):
    """What the handlers of one emit returned, in registration order, and which of them failed."""

    __slots__ = ("_results", "failures")

    def __init__(self, results: Sequence[Any] = (), failures: Sequence[HandlerFailure] = ()) -> None:
        self._results = results
        self.failures = tuple(failures)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return self._results[index]

    def __len__(self) -> int:
        return len(self._results)

    def __repr__(self) -> str:
        return f"Outcome({list(self._results)!r}, failures={list(self.failures)!r})"


_NOTHING = Outcome()
_EMPTY_CONTEXT = Context()


class Subscription:
    """One handler of one event; ``cancel()`` ends it, also in the middle of an emit."""

    __slots__ = ("_bus", "app", "event", "handler", "is_active", "is_async", "owner", "running")

    def __init__(self, bus: HookBus, event: str, handler: Handler, owner: Owner | None, app: AppKey | None) -> None:
        self._bus = bus
        self.event = event
        self.handler = handler
        self.owner = owner
        self.app = app
        self.running = Running(app, owner, Entry.EVENT)
        self.is_active = True
        self.is_async = inspect.iscoroutinefunction(handler)

    def cancel(self) -> None:
        """Stop receiving the event. Calling it again does nothing."""
        self.is_active = False
        self._bus._remove(self)

    def __repr__(self) -> str:
        return f"<Subscription {self.event} → {describe_handler(self.handler)}>"


Around = Callable[[Subscription], AbstractContextManager[None]]
"""Returns what a handler is to run inside of."""


class Outlet(Protocol):
    """Another process in which the events of a bus are heard too, and which knows more of them."""

    async def emit(self, event: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Announce there what is announced here; raise where that is not allowed, and nobody hears it here either."""

    def audience_changed(self) -> None:
        """Somebody listens, or listens no more; called in any thread."""


class HookBus:
    """Delivers events to the handlers of the app whose code is running, and to all where none is.

    Handlers run one after the other in registration order, in the emitter's task. None of them can
    stop another one or the emitter: an exception, or running longer than ``handler_timeout``
    seconds, becomes a failure in the outcome and a line in the log.
    """

    def __init__(self, handler_timeout: float = 10.0) -> None:
        self.handler_timeout = handler_timeout
        self._subscriptions: dict[str, tuple[Subscription, ...]] = {}
        self._audiences: dict[tuple[str, AppKey | None], tuple[_Listener, ...]] = {}
        self._watchdog = _Watchdog(self)
        self._after_commit = AfterCommit(self)
        self._lock = threading.Lock()
        self._watchers: list[FailureWatcher] = []
        self._around: Around | None = None
        self._outlet: Outlet | None = None

    def connect(self, outlet: Outlet) -> None:
        """Let what is emitted here be heard in another process too, from now on.

        ``HookBus.emit`` itself, called with this bus, still reaches the handlers here and nobody else.
        """

        async def emit_there_too(event: str, *args: Any, **kwargs: Any) -> Outcome:
            await outlet.emit(event, args, kwargs)
            return await HookBus.emit(self, event, *args, **kwargs)

        self._outlet = outlet
        self.emit = emit_there_too  # type: ignore[method-assign]  # so that a bus without an outlet need not ask

    def register(self, event: str, handler: Handler) -> Subscription:
        """Call ``handler`` (sync or async) with the payload each time ``event`` is emitted.

        Raises:
            ValueError: ``event`` is not of the form ``subject:verb``.
            TypeError: ``handler`` cannot be called.
        """
        if not _EVENT_NAME.fullmatch(event):
            raise ValueError(f"{event!r} is not an event name; write it like 'quest:finished'")
        if not callable(handler):
            raise TypeError(f"a handler of {event!r} must be a function, not {type(handler).__name__}")
        now = running.get()
        owner = now.owner if now else None
        subscription = Subscription(self, str(event), handler, owner, now.app if now else None)
        if owner is None:
            self._add(subscription)
        else:
            owner.ledger.add("subscription", f"{event} → {describe_handler(handler)}", subscription.cancel)
            owner.ledger.when_live(lambda: self._add(subscription))
        return subscription

    def _add(self, subscription: Subscription) -> None:
        with self._lock:
            if subscription.is_active:
                others = self._subscriptions.get(subscription.event, ())
                self._subscriptions[subscription.event] = (*others, subscription)
                self._audiences = {}
        self._tell_outlet()

    def _remove(self, subscription: Subscription) -> None:
        with self._lock:
            kept = tuple(s for s in self._subscriptions.get(subscription.event, ()) if s is not subscription)
            if kept:
                self._subscriptions[subscription.event] = kept
            else:
                self._subscriptions.pop(subscription.event, None)
            self._audiences = {}
        self._tell_outlet()

    def _tell_outlet(self) -> None:
        if self._outlet is not None:
            self._outlet.audience_changed()

    def iter_subscriptions(self, event: str | None = None) -> Sequence[Subscription]:
        """Return the subscriptions to ``event``, or all of them."""
        if event is not None:
            return self._subscriptions.get(event, ())
        return tuple(s for subscriptions in self._subscriptions.values() for s in subscriptions)

    async def emit(self, event: str, *args: Any, **kwargs: Any) -> Outcome:
        """Run the handlers of ``event`` and return their outcome; never raises for a handler's sake."""
        if event not in self._subscriptions:
            return _NOTHING
        become, before = running.set, running.get()
        results: list[Any] = []
        add_result = results.append
        is_single = len(args) == 1 and not kwargs  # the usual payload, and the cheapest call
        payload = args[0] if is_single else None
        failures: list[HandlerFailure] = []
        watch = self._watchdog.begin()
        try:
            for subscription, handler, is_async, as_owner in self._audience(event, before.app if before else None):
                if not subscription.is_active:
                    continue
                become(as_owner)
                watch.turn = subscription
                try:
                    result = handler(payload) if is_single else handler(*args, **kwargs)
                    if is_async or isinstance(result, Awaitable):
                        result = await result
                except asyncio.CancelledError:
                    if not watch.take_overrun():
                        raise
                    failures.append(self._failed(subscription, self._overrun_error()))
                except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever plugin code raises stays with it
                    watch.take_overrun()
                    failures.append(self._failed(subscription, error))
                else:
                    if watch.overrun and watch.take_overrun():
                        failures.append(self._failed(subscription, self._overrun_error()))
                    else:
                        add_result(result)
        finally:
            watch.end()
            become(before)
        return Outcome(results, failures)

    def _audience(self, event: str, app: AppKey | None) -> tuple[_Listener, ...]:
        """Return who hears ``event`` when it is emitted by ``app``; remembered until the next change."""
        audience = self._audiences.get((event, app))
        if audience is None:
            with self._lock:
                audience = tuple(
                    (subscription, *self._call_of(subscription), subscription.running)
                    for subscription in self._subscriptions.get(event, ())
                    if app is None or subscription.app is None or subscription.app is app
                )
                self._audiences[event, app] = audience
        return audience

    def _call_of(self, subscription: Subscription) -> tuple[Handler, bool]:
        """Return what is called for a subscription, and whether that is async."""
        if self._around is None:
            return subscription.handler, subscription.is_async
        return _run_inside(self._around, subscription), True

    @contextmanager
    def around_handlers(self, around: Around) -> Iterator[None]:
        """Until the end, run each handler inside what ``around`` returns for its subscription."""
        self._set_around(around)
        try:
            yield
        finally:
            self._set_around(None)

    def _set_around(self, around: Around | None) -> None:
        with self._lock:
            self._around = around
            self._audiences = {}

    def emit_after_commit(self, db: Any, event: str, *args: Any, **kwargs: Any) -> None:
        """Emit ``event`` once ``db`` (a SQLAlchemy ``Session`` or ``AsyncSession``) has committed.

        Nothing is emitted when it rolls back. Works from sync and async code; nobody waits for the
        handlers. Events of one transaction keep their order.
        """
        session = getattr(db, "sync_session", db)
        self._after_commit.announce(session, _find_loop(), event, *args, **kwargs)

    async def settle(self) -> None:
        """Wait for the handlers of everything that was committed so far."""
        await self._after_commit.settle()

    def _overrun_error(self) -> HandlerTimeoutError:
        return HandlerTimeoutError(f"ran longer than {self.handler_timeout:g} s and was cancelled")

    def watch_failures(self, watcher: FailureWatcher) -> Callable[[], None]:
        """Tell ``watcher`` of every handler that fails, with whose it is; return the undo."""
        self._watchers.append(watcher)

        def undo() -> None:
            if watcher in self._watchers:
                self._watchers.remove(watcher)

        return undo

    def _failed(self, subscription: Subscription, error: BaseException) -> HandlerFailure:
        plugin = subscription.owner.plugin if subscription.owner else None
        failure = HandlerFailure(plugin, describe_handler(subscription.handler), error)
        logger.error("Handler of %s failed: %s", subscription.event, failure, exc_info=error)
        for tell in tuple(self._watchers):
            tell(subscription.owner, failure)
        return failure


def _run_inside(around: Around, subscription: Subscription) -> Handler:
    async def run(*args: Any, **kwargs: Any) -> Any:
        with around(subscription):
            result = subscription.handler(*args, **kwargs)
            return await result if isinstance(result, Awaitable) else result

    return run


class _Watch:
    """One emit under way: which handler (``turn``) runs, and whether the watchdog cancelled it."""

    __slots__ = ("_looks", "_seen", "_task", "_under_way", "overrun", "turn")

    def __init__(self, task: asyncio.Task[Any] | None, under_way: set[_Watch]) -> None:
        self._under_way = under_way
        self.turn: Subscription | None = None
        self.overrun = False
        self._task = task
        self._seen: Subscription | None = None
        self._looks = 0

    def end(self) -> None:
        self._under_way.discard(self)

    def look(self) -> None:
        """Cancel the handler found running at a third look in a row: it has had two whole periods."""
        self._looks = self._looks + 1 if self._seen is self.turn else 1
        self._seen = self.turn
        if self._looks >= _LOOKS and self._task is not None and not self.overrun:
            self.overrun = True
            self._task.cancel()

    def take_overrun(self) -> bool:
        """Tell whether the handler that just ended was cancelled by the watchdog, and forget it.

        False also when the emitter itself was cancelled meanwhile: then its cancellation goes on.
        """
        if not self.overrun:
            return False
        self.overrun = False
        return self._task is not None and self._task.uncancel() == 0


_LOOKS = 3


class _Watchdog:
    """One timer for all emits of an event loop: it looks at each of them twice per time limit.

    A handler that is found running at three looks in a row is cancelled, so between 1 and 1.5 times
    the limit after its start; one that ends in time has cost an assignment. The timer runs only while
    something is emitted.
    """

    def __init__(self, bus: HookBus) -> None:
        self._bus = bus
        self._watched: dict[asyncio.AbstractEventLoop, set[_Watch]] = {}

    def begin(self) -> _Watch:
        loop = asyncio.get_running_loop()
        watches = self._watched.get(loop)
        if watches is None:
            watches = self._start(loop)
        watch = _Watch(asyncio.current_task(loop), watches)
        watches.add(watch)
        return watch

    def _start(self, loop: asyncio.AbstractEventLoop) -> set[_Watch]:
        for closed in [each for each in tuple(self._watched) if each.is_closed()]:
            self._watched.pop(closed, None)  # ended in the middle of an emit
        watches = self._watched[loop] = set()
        self._wind(loop)
        return watches

    def _wind(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_later(self._bus.handler_timeout / (_LOOKS - 1), self._look, loop, context=_EMPTY_CONTEXT)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        watches = self._watched[loop]
        if not watches:
            del self._watched[loop]
            return
        for watch in tuple(watches):
            watch.look()
        self._wind(loop)


def _find_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop that runs here, else that of the running app (from a worker thread)."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        app = current_app()
        return app.loop if app else None


def describe_handler(handler: Handler) -> str:
    """Return ``module.qualified_name`` of a handler."""
    target = getattr(handler, "func", handler)
    name = getattr(target, "__qualname__", type(target).__qualname__)
    return f"{getattr(target, '__module__', None) or '?'}.{name}"
