"""Figures as text in Prometheus' exposition format, version 0.0.4. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from .figures import ConfinedFigures, PluginFigures

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_Sample = tuple[dict[str, str], float]
_Metric = tuple[str, str, str, Callable[[PluginFigures], Iterable[_Sample]]]


def _one(read: Callable[[PluginFigures], float | None]) -> Callable[[PluginFigures], Iterable[_Sample]]:
    def samples(figures: PluginFigures) -> Iterator[_Sample]:
        value = read(figures)
        if value is not None:
            yield {}, value

    return samples


def _own(read: Callable[[ConfinedFigures], float | None]) -> Callable[[PluginFigures], Iterable[_Sample]]:
    return _one(lambda it: read(it.confined) if it.confined else None)


def _calls(what: str, unit: float = 1) -> Callable[[PluginFigures], Iterable[_Sample]]:
    """Give what was counted of calls, like ``rows``, by their family, like ``db``."""

    def samples(figures: PluginFigures) -> Iterator[_Sample]:
        counted = figures.confined.calls if figures.confined else {}
        for name, amount in sorted(counted.items()):
            family, _, kind = name.partition(".")
            if kind == what:
                yield {"family": family}, amount if unit == 1 else amount * unit

    return samples


def _by_limit(read: Callable[[ConfinedFigures], Mapping[str, float]]) -> Callable[[PluginFigures], Iterable[_Sample]]:
    def samples(figures: PluginFigures) -> Iterator[_Sample]:
        found = read(figures.confined) if figures.confined else {}
        for name, value in sorted(found.items()):
            yield {"limit": name}, value

    return samples


def _shares(figures: ConfinedFigures) -> Mapping[str, float]:
    used, allowed = figures.calls_this_minute, figures.calls_per_minute
    return {name: used.get(name, 0) / most for name, most in allowed.items()}


_METRICS: Sequence[_Metric] = (
    (
        "requests_total", "counter", "HTTP answers by class of their status.",
        lambda it: [({"status": name}, count) for name, count in it.answers.items()],
    ),
    (
        "refused_total", "counter", "Requests beyond a limit, which did not reach it.",
        lambda it: [({"limit": name}, count) for name, count in it.refused.items()],
    ),
    ("websockets_total", "counter", "WebSockets that have ended.", _one(lambda it: it.websockets)),
    ("unanswered_total", "counter", "Requests whose client left before an answer.", _one(lambda it: it.unanswered)),
    ("errors_total", "counter", "Answers of 5xx and exceptions that nobody caught.", _one(lambda it: it.errors)),
    ("requests_in_flight", "gauge", "Requests and WebSockets being served.", _one(lambda it: it.in_flight)),
    ("loop_seconds_total", "counter", "Time on the event loop for requests.", _one(lambda it: it.loop_seconds)),
    ("stalls_total", "counter", "How often it blocked the event loop.", _one(lambda it: it.stalls)),
    ("stalled_seconds_total", "counter", "How long it blocked the event loop.", _one(lambda it: it.stalled_seconds)),
    ("handler_failures_total", "counter", "Event handlers that failed.", _one(lambda it: it.handler_failures)),
    ("handler_timeouts_total", "counter", "Event handlers that overran.", _one(lambda it: it.handler_timeouts)),
    ("tasks", "gauge", "Running tasks.", _one(lambda it: it.tasks)),
    ("subscriptions", "gauge", "Subscriptions to events.", _one(lambda it: it.subscriptions)),
    ("memory_bytes", "gauge", "Memory taken by its own lines, if traced.", _one(lambda it: it.memory_bytes)),
    ("process_up", "gauge", "Confined: whether its process is up.", _own(lambda it: int(it.phase == "up"))),
    ("process_starts_total", "counter", "Confined: processes begun for it.", _own(lambda it: it.starts)),
    ("process_crashes_total", "counter", "Confined: ends that nobody asked for.", _own(lambda it: it.crashes)),
    (
        "process_cpu_seconds_total", "counter", "Confined: processor time of its present process.",
        _own(lambda it: it.cpu_seconds),
    ),
    (
        "process_resident_memory_bytes", "gauge", "Confined: memory of its process, the shared included.",
        _own(lambda it: it.memory_bytes),
    ),
    ("process_threads", "gauge", "Confined: threads of its process.", _own(lambda it: it.threads)),
    ("scratch_bytes", "gauge", "Confined: size of its scratch directory.", _own(lambda it: it.scratch_bytes)),
    ("calls_total", "counter", "Confined: its calls of the host.", _calls("calls")),
    ("call_seconds_total", "counter", "Confined: how long they took.", _calls("milliseconds", 0.001)),
    ("call_statements_total", "counter", "Confined: statements that were run for it.", _calls("statements")),
    ("call_rows_total", "counter", "Confined: rows that it was given.", _calls("rows")),
    ("call_bytes_total", "counter", "Confined: bytes that it was given, or sent.", _calls("bytes")),
    (
        "calls_refused_total", "counter", "Confined: calls beyond a limit, which were not carried out.",
        _by_limit(lambda it: it.calls_refused),
    ),
    (
        "calls_minute_ratio", "gauge", "Confined: how much of what it may use in a minute it has used.",
        _by_limit(_shares),
    ),
)  # fmt: skip


def render_prometheus(figures: Iterable[PluginFigures], prefix: str = "pixsim7_plugin_") -> str:
    """Return the figures as metrics with the label ``plugin``, each metric with its help and type."""
    all_figures = tuple(figures)
    lines: list[str] = []
    for name, kind, text, samples_of in _METRICS:
        samples = [(it, labels, value) for it in all_figures for labels, value in samples_of(it)]
        if samples:
            lines += _head(f"{prefix}{name}", kind, text)
            lines += [_sample(f"{prefix}{name}", it.plugin, labels, value) for it, labels, value in samples]
    name = f"{prefix}request_seconds"
    if all_figures:
        lines += _head(name, "histogram", "Time until the answer begins.")
    for it in all_figures:
        lines += _histogram(name, it)
    return "".join(f"{line}\n" for line in lines)


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _histogram(name: str, figures: PluginFigures) -> Iterator[str]:
    latency, seen = figures.latency, 0
    for bound, count in zip((*map(_number, latency.bounds), "+Inf"), latency.counts, strict=True):
        seen += count
        yield _sample(f"{name}_bucket", figures.plugin, {"le": bound}, seen)
    yield _sample(f"{name}_sum", figures.plugin, {}, latency.sum)
    yield _sample(f"{name}_count", figures.plugin, {}, seen)


def _sample(name: str, plugin: str, labels: dict[str, str], value: float) -> str:
    pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in {"plugin": plugin, **labels}.items())
    return f"{name}{{{pairs}}} {_number(value)}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return repr(value) if isinstance(value, int) else repr(float(value)).removesuffix(".0")
