"""The files of a new plugin, made from the templates beside this module."""

from __future__ import annotations

import keyword
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from pydantic import ValidationError

from pixsim7_backend.infrastructure.plugins.types import PluginManifest

__all__ = ["FEATURES", "BadPluginIdError", "NewPlugin", "check_new_id", "render", "write"]

#: What a new plugin can come with.
FEATURES = ("db", "settings", "events")

_TEMPLATES = files("pixsim7_backend.cli") / "templates" / "plugin"
_MARK = re.compile(r"\s*#: (?:if (?P<needs>.+)|end)")


class BadPluginIdError(ValueError):
    """The id cannot be a plugin's; the text names one that can, where there is one near."""

    def __init__(self, plugin_id: str, reason: str, suggestion: str) -> None:
        hint = f"; try {suggestion!r}" if suggestion else ""
        super().__init__(f"{plugin_id!r} cannot be a plugin id: {reason}{hint}")
        self.suggestion = suggestion


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPlugin:
    """What the author said about the plugin to be."""

    id: str
    name: str
    description: str
    author: str = ""
    features: frozenset[str] = frozenset()

    @property
    def folder(self) -> str:
        return self.id.replace("-", "_")


def check_new_id(plugin_id: str) -> str:
    """Return the id; raise BadPluginIdError when a plugin cannot have it, or its folder could not be imported."""
    reason = _why_not(plugin_id)
    if reason:
        suggestion = _nearest(plugin_id)
        raise BadPluginIdError(plugin_id, reason, suggestion if not _why_not(suggestion) else "")
    return plugin_id


def _why_not(plugin_id: str) -> str:
    if keyword.iskeyword(plugin_id):
        return "it is a word of Python, under which no code can be imported"
    if plugin_id in ("test", "tests"):
        return "a folder of this name is taken for tests"
    try:
        PluginManifest(id=plugin_id)
    except ValidationError:
        return "lower-case letters, digits and single hyphens, starting with a letter"
    return ""


def _nearest(plugin_id: str) -> str:
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1-\2", plugin_id).lower()
    name = re.sub(r"[^a-z0-9]+", "-", words).strip("-")
    return name if name and not _why_not(name) else f"plugin-{name}".rstrip("-")


def render(plugin: NewPlugin) -> Mapping[str, str]:
    """Return the text of each file by its path inside the plugin's folder."""
    sources = {"__init__.py": "__init__.py", "manifest.py": "manifest.py"}
    if "db" in plugin.features:
        sources |= {"models.py": "models.py", "migrations/0001_initial.py": "migration.py"}
    sources |= {f"tests/test_{plugin.folder}.py": "test.py"}
    return {path: _fill(name, plugin) for path, name in sources.items()}


def _fill(name: str, plugin: NewPlugin) -> str:
    text = (_TEMPLATES / f"{name}.txt").read_text(encoding="utf-8")
    wanted = set(plugin.features)
    wanted |= {"author"} if plugin.author else set()
    wanted |= {"posts"} if wanted & {"db", "events"} else set()
    lines = "".join(_chosen(text.splitlines(keepends=True), wanted))
    summary = f"{plugin.name}: {plugin.description}"
    return Template(lines).substitute(
        id=plugin.id,
        folder=plugin.folder,
        docstring=_docstring(summary),
        id_literal=_literal(plugin.id),
        name_literal=_literal(plugin.name),
        description_literal=_literal(plugin.description),
        author_literal=_literal(plugin.author),
    )


def _chosen(lines: list[str], wanted: set[str]) -> Iterator[str]:
    """Yield the lines under ``#: if a -b`` where ``a`` is wanted and ``b`` is not; a mark ends what stands before."""
    is_chosen = True
    for line in lines:
        mark = _MARK.match(line)
        if mark is None:
            if is_chosen:
                yield line
        else:
            words = (mark["needs"] or "").split()
            is_chosen = all((word[1:] not in wanted) if word.startswith("-") else (word in wanted) for word in words)


def _literal(text: str) -> str:
    """Write a text as Python does, with double quotes where that needs no escape."""
    written = repr(text)
    return f'"{written[1:-1]}"' if written.startswith("'") and '"' not in written else written


def _docstring(text: str) -> str:
    safe = " ".join(text.replace('"', "'").split()).rstrip(".")
    prefix = "r" if "\\" in safe else ""
    return f'{prefix}"""{safe}."""'


def write(plugin: NewPlugin, into: Path) -> Path:
    """Write the plugin's folder below ``into``, whole or not at all; return it.

    Raises:
        FileExistsError: there is something of that name.
    """
    target = into / plugin.folder
    if target.exists() or target.is_symlink():
        raise FileExistsError(str(target))
    into.mkdir(parents=True, exist_ok=True)
    # A dot in front: neither discovery nor a watching server looks in there while it is half written.
    with tempfile.TemporaryDirectory(prefix=".new-", dir=into) as place:
        aside = Path(place) / plugin.folder
        for path, text in render(plugin).items():
            file = aside / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        os.rename(aside, target)  # noqa: PTH104  # Path.rename would do the same; the name says that it is one step
    return target
