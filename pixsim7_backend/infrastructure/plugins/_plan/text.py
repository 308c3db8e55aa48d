"""A plan as text, for people: what loads, in which order, and what is held back and why."""

from __future__ import annotations

from collections.abc import Iterator

from .plan import Plan


def render_plan(plan: Plan) -> str:
    """Return the plan as lines of text, without a line break at the end."""
    return "\n".join(_lines(plan))


def render_graph(plan: Plan) -> str:
    """Return every plugin with what it requires, as lines of text; held ones show their state."""
    lines = []
    for plugin_id in (*plan.order, *sorted(plan.held)):
        state = f" ({plan.held[plugin_id].state})" if plugin_id in plan.held else ""
        needed = ", ".join(plan.requires[plugin_id])
        lines.append(f"{plugin_id}{state}{f' <- {needed}' if needed else ''}")
    return "\n".join(lines)


def _lines(plan: Plan) -> Iterator[str]:
    width = max(map(len, plan.order), default=0)
    yield f"{len(plan.order)} to load{':' if plan.order else ''}"
    for number, plugin_id in enumerate(plan.order, start=1):
        manifest = plan.candidates[plugin_id].manifest
        version = manifest.version if manifest else "(manifest not read yet)"
        needed = ", ".join(plan.requires[plugin_id])
        yield f"{number:4}. {plugin_id:{width}}  {version}{f'  requires {needed}' if needed else ''}"
    if plan.held:
        yield f"{len(plan.held)} held back:"
    for plugin_id, error in sorted(plan.held.items()):
        yield f"  {error.state:8} {plugin_id}: {error}"
        for further in plan.problems:
            if further.plugin == plugin_id and further is not error:
                yield f"{'':11}also: {further}"
    for candidate, error in plan.rejected:
        yield f"  rejected {candidate.source}: {error}"
    for warning in plan.iter_warnings():
        yield f"  warning  {warning}"
