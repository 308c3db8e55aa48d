"""What dispatch costs: against hard-coded routers and one mount per plugin, in process.

Every number is the median of interleaved rounds, every ratio is taken within one round. Apps are
called as ASGI applications without a server and without lifespan: from about 490 included routers a
hard-coded app no longer starts its own.
"""

import asyncio
import gc
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import median
from types import FrameType
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI
from starlette.types import Message, Receive, Scope, Send

from pixsim7_backend.infrastructure.plugins._attribution.culprit import Culprit
from pixsim7_backend.infrastructure.plugins._attribution.stalls import StallWatch
from pixsim7_backend.infrastructure.plugins._dispatch import (
    PluginMount,
    PluginRoute,
    build_mount,
    fastapi_internals,
)
from pixsim7_backend.infrastructure.plugins._ledger.ownership import AppKey, Owner

from .report import Row, at_least, at_most, for_comparison

PREFIX = "/api/v1"


# --- the apps ---------------------------------------------------------------------------------------


def router_of(number: int, generation: int = 0) -> APIRouter:
    """Return a router of ten routes, half of them with a parameter."""
    router = APIRouter(prefix=f"/plugin{number}", tags=[f"plugin{number}"])

    async def read() -> dict[str, int]:
        return {"generation": generation}

    async def read_one(item: int) -> dict[str, int]:
        return {"item": item}

    for position in range(5):
        router.add_api_route(f"/static{position}", read)
        router.add_api_route(f"/items{position}/{{item}}", read_one)
    return router


def paths_of(number: int) -> list[str]:
    """Return one path for each of the ten routes."""
    base = f"{PREFIX}/plugin{number}"
    return [f"{base}/static{position}" for position in range(5)] + [f"{base}/items{n}/7" for n in range(5)]


def hard_coded(count: int) -> FastAPI:
    """Return an app with ``count`` included routers."""
    app = FastAPI()
    for number in range(count):
        app.include_router(router_of(number), prefix=PREFIX)
    return app


def mounted(count: int) -> FastAPI:
    """Return an app with ``count`` mounted sub-applications."""
    app = FastAPI()
    for number in range(count):
        sub = FastAPI()
        router = router_of(number)
        router.prefix = ""
        for route in router.routes:
            assert hasattr(route, "endpoint")
            sub.add_api_route(str(getattr(route, "path", "")).removeprefix(f"/plugin{number}"), route.endpoint)
        app.mount(f"{PREFIX}/plugin{number}", sub)
    return app


class Platform:
    """An app with ``count`` plugins."""

    def __init__(self, count: int) -> None:
        self.app, self.key = FastAPI(), AppKey()
        self.route = PluginRoute.install(self.app, self.key)
        self.mounts = {f"plugin{number}": self.mount(router_of(number), number) for number in range(count)}
        self.route.publish(self.mounts)

    def mount(self, router: APIRouter, number: int, generation: int = 1) -> PluginMount:
        owner = Owner(self.key, f"plugin{number}", generation, "", "")
        return build_mount(self.app, owner=owner, routers=[router], prefix=PREFIX, tags=())

    def swap(self, number: int, router: APIRouter, generation: int) -> PluginMount:
        """Publish a new generation of one plugin, return the mount that it replaces."""
        name = f"plugin{number}"
        before = self.mounts[name]
        self.mounts = {**self.mounts, name: self.mount(router, number, generation)}
        self.route.publish(self.mounts)
        return before


@contextmanager
def public_variant() -> Iterator[None]:
    """Build platforms as with a FastAPI whose private names are gone."""
    before, fastapi_internals.missing = fastapi_internals.missing, ("_IncludedRouter",)
    try:
        yield
    finally:
        fastapi_internals.missing = before


# --- measuring --------------------------------------------------------------------------------------


def scope_of(path: str) -> Scope:
    """Return the scope of a GET request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"test")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }


async def receive() -> Message:
    """Give an empty body."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def discard(message: Message) -> None:
    """Take what the app sends, and keep nothing."""


async def status_of(app: FastAPI, path: str) -> tuple[int, bytes]:
    """Send one request, return status and body."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope_of(path), receive, send)
    return sent[0]["status"], sent[1]["body"]


async def microseconds(app: FastAPI, paths: Sequence[str], repeat: int) -> float:
    """Return the mean time of one request over ``paths``."""
    start = time.perf_counter()
    for _ in range(repeat):
        for path in paths:
            await app(scope_of(path), receive, discard)
    return (time.perf_counter() - start) / repeat / len(paths) * 1e6


Contender = tuple[FastAPI, Sequence[str], int]


async def interleaved(contenders: Mapping[str, Contender], rounds: int) -> dict[str, list[float]]:
    """Measure the contenders in turn, ``rounds`` times; each is (app, paths, repetitions)."""
    for app, paths, _ in contenders.values():
        await microseconds(app, paths, 1)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    with quiet_heap():
        for _ in range(rounds):
            for name, (app, paths, repeat) in contenders.items():
                times[name].append(await microseconds(app, paths, repeat))
    return times


@contextmanager
def quiet_heap() -> Iterator[None]:
    """Keep the collector from walking thousands of routes in the middle of one contender's turn."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


def ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the median over the rounds of ``one / other``."""
    return median(left / right for left, right in zip(one, other, strict=True))


def spread(count: int) -> list[str]:
    """Return the paths of the first, the middle and the last plugins."""
    return [path for number in (0, count // 3, count // 2, count - 1) for path in paths_of(number)]


# --- the rows ---------------------------------------------------------------------------------------


async def any_route(quick: bool) -> list[Row]:
    """Cost of any route with 500 and 1,000 plugins against an app of one hard-coded plugin."""
    with public_variant():
        fallback = Platform(500)
    contenders: dict[str, Contender] = {
        "one": (hard_coded(1), paths_of(0), 40),
        "500": (Platform(500).app, spread(500), 10),
        "1000": (Platform(1000).app, spread(1000), 10),
        "fallback": (fallback.app, spread(500), 10),
    }
    for app, paths, _ in contenders.values():
        assert {status for path in paths for status, _ in [await status_of(app, path)]} == {200}
    times = await interleaved(contenders, 5 if quick else 31)
    base = times["one"]

    def row(name: str, title: str, limit: float) -> Row:
        detail = f"{median(times[name]):.1f} µs against {median(base):.1f} µs"
        return at_most(title, ratio(times[name], base), limit, "x", detail)

    return [
        row("500", "any route of 500 plugins / one hard-coded plugin", 0.90),
        row("1000", "any route of 1,000 plugins / one hard-coded plugin", 0.90),
        row("fallback", "the same, 500 plugins, public names only", 1.05),
    ]


async def attribution(quick: bool) -> list[Row]:
    """What it costs to know whose request it is, to count it, to time its steps, and to watch the loop meanwhile."""
    platform = Platform(500)
    mount, scope = platform.mounts["plugin0"], scope_of("/")

    async def answer(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def bare() -> None:
        await answer(scope, receive, discard)

    async def served() -> None:
        await mount.serve(answer, scope, receive, discard)

    added: list[float] = []
    watched: list[float] = []
    paths = spread(500)
    with quiet_heap():
        for _ in range(5 if quick else 31):
            added.append(await _each(served) - await _each(bare))
            before = await microseconds(platform.app, paths, 10)
            watch = StallWatch(0.25, find_culprit=_nobody, on_stall=print)
            watch.start()
            watched.append(await microseconds(platform.app, paths, 10) / before)
            watch.stop()
    return [
        for_comparison("of which: owning, counting and timing a request", median(added), "µs", "in every row above"),
        for_comparison("a request while stalls are watched / while they are not", median(watched), "x", ""),
    ]


async def _each(ask: Callable[[], Awaitable[None]], repeat: int = 2000) -> float:
    start = time.perf_counter()
    for _ in range(repeat):
        await ask()
    return (time.perf_counter() - start) / repeat * 1e6


def _nobody(frame: FrameType) -> Culprit:
    return Culprit(None, frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname)


async def last_of_many(quick: bool) -> list[Row]:
    """The last of 500 plugins and a 404, against include_router and against mounts."""
    hard, mounts, platform = hard_coded(500), mounted(500), Platform(500).app
    last, nowhere = paths_of(499), [f"{PREFIX}/nowhere"]
    contenders: dict[str, Contender] = {
        "platform": (platform, last, 20),
        "hard": (hard, last[4:6], 1),
        "mounts": (mounts, last, 1),
        "platform 404": (platform, nowhere, 100),
        "hard 404": (hard, nowhere, 1),
        "mounts 404": (mounts, nowhere, 1),
    }
    times = await interleaved(contenders, 3 if quick else 15)

    def factor(against: str, suffix: str = "") -> tuple[float, str]:
        ours, theirs = times[f"platform{suffix}"], times[f"{against}{suffix}"]
        return ratio(theirs, ours), f"{median(ours):.1f} µs against {median(theirs):,.0f} µs"

    (request, request_detail), (missing, missing_detail) = factor("hard"), factor("hard", " 404")
    (mount, mount_detail), (mount_missing, mount_missing_detail) = factor("mounts"), factor("mounts", " 404")
    return [
        at_least("last of 500 plugins: faster than include_router", request, 200, "x", request_detail),
        at_least("404 with 500 plugins: faster than include_router", missing, 500, "x", missing_detail),
        for_comparison("last of 500 plugins: faster than one Mount per plugin", mount, "x", mount_detail),
        for_comparison("404 with 500 plugins: faster than one Mount each", mount_missing, "x", mount_missing_detail),
    ]


async def nineteen(quick: bool) -> list[Row]:
    """The mean over all routes of 19 plugins."""
    paths = [path for number in range(19) for path in paths_of(number)]
    contenders: dict[str, Contender] = {
        "platform": (Platform(19).app, paths, 2),
        "hard": (hard_coded(19), paths, 1),
        "mounts": (mounted(19), paths, 1),
    }
    times = await interleaved(contenders, 5 if quick else 21)
    ours = median(times["platform"])
    hard, mounts = (ratio(times[name], times["platform"]) for name in ("hard", "mounts"))
    detail = f"{ours:.1f} µs against {median(times['hard']):.1f} µs"
    mount_detail = f"{ours:.1f} µs against {median(times['mounts']):.1f} µs"
    return [
        at_least("19 plugins, mean over all routes: faster than include_router", hard, 2.5, "x", detail),
        for_comparison("19 plugins, mean: faster than one Mount per plugin", mounts, "x", mount_detail),
    ]


async def publishing(quick: bool) -> list[Row]:
    """Time of one publish, and of the OpenAPI document after it, in an app of 500 plugins."""
    platform = Platform(500)
    status, _ = await status_of(platform.app, "/openapi.json")
    assert status == 200
    publish: list[float] = []
    document: list[float] = []
    with quiet_heap():
        for generation in range(2, 12 if quick else 42):
            mount = platform.mount(router_of(250, generation), 250, generation)
            platform.mounts = {**platform.mounts, "plugin250": mount}
            start = time.perf_counter()
            platform.route.publish(platform.mounts)
            publish.append((time.perf_counter() - start) * 1e3)
            start = time.perf_counter()
            await status_of(platform.app, "/openapi.json")
            document.append((time.perf_counter() - start) * 1e3)
    return [
        at_most("publishing a swap among 500 plugins", median(publish), 0.5, "ms", f"worst {max(publish):.2f} ms"),
        at_most("OpenAPI after a swap among 500 plugins", median(document), 25, "ms", f"worst {max(document):.1f} ms"),
    ]


def telling_router(number: int, generation: int) -> APIRouter:
    """Return a router whose dependency, endpoint and route all say which generation they are of."""
    router = APIRouter(prefix=f"/plugin{number}")

    async def depend() -> int:
        await asyncio.sleep(0)
        return generation

    async def tell(seen: Annotated[int, Depends(depend)]) -> dict[str, int]:
        await asyncio.sleep(0)
        return {"dependency": seen, "endpoint": generation}

    for position in range(5):
        router.add_api_route(f"/static{position}", tell)
    return router


async def swapping(quick: bool) -> list[Row]:
    """Swap one of 500 plugins again and again under load; count what went wrong."""
    platform, swaps = Platform(500), 100 if quick else 1000
    platform.swap(250, telling_router(250, 0), 0)
    answers: list[tuple[int, bytes]] = []
    done = asyncio.Event()
    clients = [asyncio.create_task(_ask(platform.app, client, answers, done)) for client in range(8)]
    left: list[str] = []
    for generation in range(1, swaps + 1):
        router = telling_router(250, generation)
        before = platform.swap(250, router, generation)
        left += await before.drain(5)
        await asyncio.sleep(0)
    done.set()
    await asyncio.gather(*clients)
    wrong = sum(not _is_whole(answer) for answer in answers)
    detail = f"{swaps:,} swaps, {len(answers):,} requests, {len(left)} not drained"
    return [at_most("requests lost, mixed or half-built during swaps", wrong + len(left), 0, "", detail)]


async def _ask(app: FastAPI, client: int, answers: list[tuple[int, bytes]], done: asyncio.Event) -> None:
    while not done.is_set():
        answers.append(await status_of(app, f"{PREFIX}/plugin250/static{client % 5}"))
        await asyncio.sleep(0)  # an answer that never waited would leave no turn to the swaps


def _is_whole(answer: tuple[int, Any]) -> bool:
    status, body = answer
    return status == 200 and len(set(json.loads(body).values())) == 1


def rows(quick: bool) -> list[Row]:
    """Measure everything about dispatch; ``quick`` repeats less."""
    measured: list[Row] = []
    for measure in (any_route, attribution, last_of_many, nineteen, publishing, swapping):
        measured += asyncio.run(measure(quick))
        gc.collect()
    return measured
