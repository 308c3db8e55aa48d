"""``pixsim7 plugins new``: a plugin to start from, with tests that pass."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from pixsim7_backend.cli.output import CommandError, JsonFlag, print_json, say
from pixsim7_backend.cli.scaffold import FEATURES, BadPluginIdError, NewPlugin, check_new_id, write
from pixsim7_backend.infrastructure.plugins.errors import PluginDirectoryError
from pixsim7_backend.infrastructure.plugins.preview import preview
from pixsim7_backend.settings import Settings, load_settings


def new(
    plugin_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the plugin, like my-feature.")],
    *,
    into: Annotated[Path | None, typer.Option("--into", help="Directory for its folder; made when missing.")] = None,
    name: Annotated[str, typer.Option(help="What people read; default: the id in title case.")] = "",
    description: Annotated[str, typer.Option(help="One sentence on what it adds.")] = "",
    author: Annotated[str, typer.Option(help="Who writes it.")] = "",
    with_: Annotated[str, typer.Option("--with", help="What it comes with: db,settings,events (any of them).")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Write a plugin that works, with tests that pass, to start from."""
    settings = load_settings()
    plugin = _described(plugin_id, name, description, author, _features(with_))
    directory = into or default_directory(settings)
    _refuse_known(plugin.id, settings)
    try:
        folder = write(plugin, directory)
    except FileExistsError as error:
        raise CommandError(f"{error} exists already; choose another id, or remove it") from None
    except OSError as error:
        raise CommandError(f"cannot write below {directory}: {error.strerror}; choose another place: --into") from None
    if as_json:
        found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.py"))
        print_json({"id": plugin.id, "folder": str(folder), "files": found, "next": _next_steps(folder, settings)})
    else:
        say(f"wrote {folder}\n\nnext:\n" + "\n".join(f"  {step}" for step in _next_steps(folder, settings)))


def default_directory(settings: Settings) -> Path:
    """Return where own plugins go: the first extra directory, else the plugin directory here, else ``plugins``."""
    if settings.extra_plugins_dirs:
        return Path(settings.extra_plugins_dirs[0])
    return Path(settings.plugins_dir) if Path(settings.plugins_dir).is_dir() else Path("plugins")


def _described(plugin_id: str, name: str, description: str, author: str, features: frozenset[str]) -> NewPlugin:
    try:
        check_new_id(plugin_id)
    except BadPluginIdError as error:
        raise CommandError(str(error), exit_status=2) from None
    name = " ".join(name.split()) or plugin_id.replace("-", " ").title()
    description = " ".join(description.split()) or f"What {name} adds"
    for option, text, limit in (("--name", name, 120), ("--description", description, 2000), ("--author", author, 200)):
        if len(text) > limit:
            raise CommandError(f"{option} has {len(text)} characters; {limit} fit", exit_status=2)
    return NewPlugin(id=plugin_id, name=name, description=description, author=author.strip(), features=features)


def _features(text: str) -> frozenset[str]:
    wanted = {part.strip() for part in text.split(",") if part.strip()}
    if unknown := sorted(wanted - set(FEATURES)):
        raise CommandError(f"--with does not know {', '.join(unknown)}; it knows {', '.join(FEATURES)}", exit_status=2)
    return frozenset(wanted)


def _refuse_known(plugin_id: str, settings: Settings) -> None:
    """Refuse an id that a plugin of this server has; two of one id would both fail."""
    try:
        plan = preview([settings.plugins_dir, *settings.extra_plugins_dirs], resources=_NOTHING_ASKED)
    except PluginDirectoryError:
        return  # a directory that is not there yet has no plugins
    if plugin_id in plan.candidates:
        raise CommandError(
            f"there is a plugin {plugin_id!r} already, in {plan.candidates[plugin_id].source.path}; choose another id"
        )


_NOTHING_ASKED = {"db": lambda: None, "redis": lambda: None}


def _next_steps(folder: Path, settings: Settings) -> list[str]:
    shown, directory = shlex.quote(str(folder)), shlex.quote(str(folder.parent))
    serve = "pixsim7 serve --reload-plugins"
    is_searched = any(
        os.path.realpath(each) == os.path.realpath(folder.parent)
        for each in (settings.plugins_dir, *settings.extra_plugins_dirs)
    )
    return [
        f"pytest {shown}",
        f"pixsim7 plugins check {shown}",
        serve if is_searched else f"EXTRA_PLUGINS_DIRS={directory} {serve}",
        f"curl http://{settings.host}:{settings.port}/api/v1/{folder.name.replace('_', '-')}/hello",
    ]
