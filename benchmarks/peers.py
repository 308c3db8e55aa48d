"""A published peer in the same situation: how much slower the last of 500 plugins is than the only one.

Datasette finds its plugins' routes with a list of regular expressions. Each system is compared with
itself, so that what else a request costs there does not count. The peer is in the dependency group
``bench``; without it its row is left out.
"""

from __future__ import annotations

import asyncio
import importlib.util
import time
from collections.abc import Callable
from statistics import median
from types import ModuleType
from typing import Any

from starlette.types import ASGIApp

from .dispatch import PREFIX, Platform, discard, hard_coded, paths_of, receive, scope_of
from .report import Row, at_most, for_comparison

COUNT = 500


def rows(quick: bool) -> list[Row]:
    """Return one row per system."""
    rounds = 20 if quick else 400
    ours = asyncio.run(_slowdown(lambda count: Platform(count).app, paths_of, rounds))
    router = asyncio.run(_slowdown(hard_coded, paths_of, rounds))
    found = [
        at_most(f"last of {COUNT} plugins against the only one: here", ours[0], 1.5, "x", ours[1]),
        for_comparison(f"last of {COUNT} plugins against the only one: include_router", router[0], "x", router[1]),
    ]
    if importlib.util.find_spec("datasette") is not None:
        peer = asyncio.run(_slowdown(_datasette, paths_of, rounds))
        found.append(for_comparison(f"last of {COUNT} plugins against the only one: Datasette", peer[0], "x", peer[1]))
    return found


async def _slowdown(
    build: Callable[[int], ASGIApp], paths: Callable[[int], list[str]], rounds: int
) -> tuple[float, str]:
    one, many = build(1), build(COUNT)
    only, last = paths(0)[-1], paths(COUNT - 1)[-1]
    for app, path in ((one, only), (many, last)):
        await _call(app, path)  # what is built on the first request does not count
    ratios, times = [], []
    for _ in range(rounds):
        base, measured = await _timed(one, only), await _timed(many, last)
        ratios.append(measured / base)
        times.append((base, measured))
    base, measured = (median(column) * 1e6 for column in zip(*times, strict=True))
    return median(ratios), f"{measured:,.0f} µs against {base:,.0f} µs"


async def _timed(app: ASGIApp, path: str) -> float:
    started = time.perf_counter()
    await _call(app, path)
    return time.perf_counter() - started


async def _call(app: ASGIApp, path: str) -> None:
    await app(scope_of(path), receive, discard)


def _datasette(count: int) -> ASGIApp:
    """Return a Datasette with ``count`` plugins of ten routes each; the one with the highest number is asked last."""
    from datasette.app import Datasette
    from datasette.plugins import pm

    for plugin in [each for each in pm.get_plugins() if each.__name__.startswith("bench_")]:
        pm.unregister(plugin)
    for number in reversed(range(count)):  # pluggy asks the one registered last first
        pm.register(_datasette_plugin(number))
    app: ASGIApp = Datasette(memory=True).app()
    return app


def _datasette_plugin(number: int) -> ModuleType:
    """Return a plugin with the same ten routes as :func:`benchmarks.dispatch.router_of`."""
    from datasette import hookimpl
    from datasette.utils.asgi import Response

    async def read() -> Any:
        return Response.json({"generation": 0})

    async def read_one(request: Any) -> Any:
        return Response.json({"item": int(request.url_vars["item"])})

    base = f"{PREFIX}/plugin{number}"
    routes: list[tuple[str, Any]] = [(rf"^{base}/static{n}$", read) for n in range(5)]
    routes += [(rf"^{base}/items{n}/(?P<item>[^/]+)$", read_one) for n in range(5)]

    def register_routes() -> list[tuple[str, Any]]:
        return routes

    plugin = ModuleType(f"bench_{number}")
    plugin.__dict__["register_routes"] = hookimpl(register_routes)
    return plugin
