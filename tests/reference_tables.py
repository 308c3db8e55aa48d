"""The tables of docs/reference, made from the code; ``python -m tests.reference_tables`` writes them anew.

In a page a table stands between ``<!-- table NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer.main
from fastapi import FastAPI
from pydantic import BaseModel, SecretStr

from pixsim7_backend import db
from pixsim7_backend.cli import app as command_line
from pixsim7_backend.community import sdk, tables
from pixsim7_backend.infrastructure import plugins
from pixsim7_backend.infrastructure.plugins import (
    BreakerSettings,
    LimitSettings,
    PluginError,
    PluginEvents,
    PluginFigures,
    PluginManager,
    PluginManifest,
    admin,
    errors,
    init_plugin_manager,
    jails,
    testing,
)
from pixsim7_backend.infrastructure.plugins._attribution.figures import ConfinedFigures
from pixsim7_backend.infrastructure.plugins._attribution.prometheus import render_prometheus
from pixsim7_backend.infrastructure.plugins.admin import problem_of
from pixsim7_backend.operating import PREFIX, plugin_routes
from pixsim7_backend.settings import Settings

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
_TABLE = re.compile(r"(?P<head><!-- table (?P<name>\S+) -->\n)(?P<rows>.*?)(?=<!-- end -->)", re.DOTALL)
Row = Sequence[str]


# --- reading the code -----------------------------------------------------------------------------


def attribute_docs(cls: type) -> dict[str, str]:
    """Return the docstrings below a class's attributes, each on one line."""
    [body] = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for one, following in pairwise(body.body):
        if _is_text(following) and isinstance(one, (ast.Assign, ast.AnnAssign)):
            target = one.target if isinstance(one, ast.AnnAssign) else one.targets[0]
            found[ast.unparse(target)] = _flat(ast.literal_eval(following.value))  # type: ignore[attr-defined]
    return found


def summary(thing: Any) -> str:
    """Return the first sentence of a docstring, empty where there is none."""
    text = (inspect.getdoc(thing) or "").split("\n\n")[0]
    return _flat(text)


def _flat(text: str) -> str:
    plain = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", " ".join(text.split()))
    return plain.replace("``", "`").replace("|", "\\|")


def _shown(value: Any) -> str:
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, Enum):
        value = value.value
    if value is None or (not value and isinstance(value, (str, tuple))):
        return "" if value is None or isinstance(value, str) else "`[]`"
    if isinstance(value, bool) or not isinstance(value, (str, Path)):
        return f"`{value}`"
    return f"`{value}`" if isinstance(value, Path) else f'`"{value}"`'


# --- the tables -----------------------------------------------------------------------------------


def manifest_table() -> Iterator[Row]:
    yield "field", "default", "meaning"
    docs = attribute_docs(PluginManifest)
    for name, field in PluginManifest.model_fields.items():
        default = "required" if field.is_required() else _shown(field.default) or '`""`'
        yield f"`{name}`", default, docs[name]


def settings_table(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[Row]:
    yield "setting", "default", "example", "meaning"
    docs = attribute_docs(model)
    for name, field in model.model_fields.items():
        default = _shown(field.default).replace('"', "") or "none"
        default = default.lower() if isinstance(field.default, bool) else default
        example = (field.examples or [""])[0]
        yield (
            f"`{prefix}{name.upper()}`",
            default.replace("`[]`", "none").replace("`{}`", "none"),
            f"`{example}`" if example else "",
            docs[name],
        )


def plugin_settings_table() -> Iterator[Row]:
    # Late: whoever has loaded and closed these plugins meanwhile has taken their modules along.
    from pixsim7_backend.plugins.auth.settings import AuthSettings
    from pixsim7_backend.plugins.users.settings import UsersSettings

    for model, prefix in ((AuthSettings, "AUTH_"), (UsersSettings, "USERS_")):
        for number, row in enumerate(settings_table(model, prefix)):
            if number or model is AuthSettings:
                yield (*row[:2], row[3])


def breaker_table() -> Iterator[Row]:
    yield "field", "default", "meaning"
    docs = attribute_docs(BreakerSettings)
    for name, value in vars_of(BreakerSettings()):
        yield f"`{name}`", f"`{value:g}`", docs.get(name, "")


def limits_table() -> Iterator[Row]:
    yield "field", "default", "meaning"
    docs = attribute_docs(LimitSettings)
    for name, value in vars_of(LimitSettings()):
        yield f"`{name}`", f"`{value}`", docs[name]


def vars_of(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a dataclass with slots."""
    for name in value.__dataclass_fields__:
        yield name, getattr(value, name)


def events_table() -> Iterator[Row]:
    yield "event", "constant", "payload"
    source = inspect.getsource(PluginEvents)
    for event in PluginEvents:
        line = re.search(rf"^ +{event.name} = .*?# (.*)$", source, re.MULTILINE)
        assert line is not None, event
        payload = _flat(line[1]).removesuffix(", after the new ones took effect")
        yield f"`{event}`", f"`{event.name}`", "" if payload == "nothing" else f"`({payload})`"


def errors_table() -> Iterator[Row]:
    yield "error", "state", "status", "fields", "meaning"
    for name in errors.__all__:
        kind = getattr(errors, name)
        if not issubclass(kind, PluginError) or kind is PluginError:
            continue
        fields = [each for each in inspect.signature(kind).parameters if each != "plugin"]
        yield (
            f"`{name}`",
            _state_of(kind),
            str(int(_status_of(kind))),
            ", ".join(f"`{each}`" for each in fields),
            summary(kind),
        )


def _state_of(kind: type[PluginError]) -> str:
    return f"`{kind.state}`"


def _status_of(kind: type[PluginError]) -> int:
    error = kind.__new__(kind)
    PluginError.__init__(error, "", plugin="some")
    return problem_of(error)[0]


def metrics_table() -> Iterator[Row]:
    yield "metric", "type", "meaning"
    counted = {f"db.{what}": 1 for what in ("calls", "milliseconds", "statements", "rows", "bytes")}
    confined = ConfinedFigures(
        phase="up", starts=1, crashes=0, cpu_seconds=1, memory_bytes=1, threads=1, scratch_bytes=1, calls=counted,
        calls_this_minute=counted, calls_per_minute=counted, calls_refused=counted,
    )  # fmt: skip
    figures = PluginFigures(plugin="one", answers={"2xx": 1}, refused={"rate": 1}, memory_bytes=1, confined=confined)
    text = render_prometheus([figures])
    kinds = dict(re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE))
    for name, meaning in re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE):
        yield f"`{name}`", kinds[name], meaning


def admin_table() -> Iterator[Row]:
    yield "method and path", "query", "does", "problems"
    app = FastAPI()
    app.include_router(plugin_routes())
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            query = [f"`{each['name']}`" for each in operation.get("parameters", ()) if each["in"] == "query"]
            own = [status for status in operation["responses"] if status.startswith("4")]
            yield (
                f"`{method.upper()} {path.removeprefix(PREFIX) or '/'}`",
                ", ".join(query),
                _flat(operation["description"]),
                ", ".join(own),
            )


def commands_text() -> str:
    """Return a section for each command: its usage, what it does, its arguments and options."""
    root = typer.main.get_command(command_line)
    return "\n".join(_sections(root, "pixsim7"))


def _sections(command: Any, name: str) -> Iterator[str]:
    inner = getattr(command, "commands", {})
    for each, one in inner.items():
        yield from _sections(one, f"{name} {each}")
    if inner:
        return
    yield f"## `{name}`\n"
    yield f"{_flat(inspect.cleandoc(command.help or ''))}\n"
    rows = [(_spelling(each), _default(each), _flat(each.help or "")) for each in command.params]
    yield "\n".join(_lines([("argument or option", "default", "meaning"), *rows]))
    yield ""


def _spelling(parameter: Any) -> str:
    annotation = parameter.type_descriptor.annotation
    kind = getattr(annotation, "__name__", str(annotation)).lower()
    if inspect.isclass(annotation) and issubclass(annotation, Enum):
        kind = "\\|".join(str(each.value) for each in annotation)
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or parameter.name}`"
    names = ", ".join(f"`{each}`" for each in parameter.opts)
    return names if parameter.is_flag else f"{names} {parameter.metavar or kind}"


def _default(parameter: Any) -> str:
    value = parameter.default
    if value in (None, False, "", ()) or callable(value):
        return "required" if parameter.required else ""
    return f"`{value:g}`" if _is_number(value) else f"`{value}`"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float))


def names_table(module: Any, names: Iterable[str]) -> Iterator[Row]:
    yield "name", "what it is"
    for name in names:
        thing = getattr(module, name)
        is_documented = inspect.isclass(thing) or inspect.isfunction(thing) or inspect.ismodule(thing)
        text = summary(thing) if is_documented else _documented_below(name) or _annotated(thing) or summary(type(thing))
        yield f"`{name}{_parameters(thing)}`", text


def _annotated(thing: Any) -> str:
    """Return what an ``Annotated`` dependency stands for."""
    if not hasattr(thing, "__metadata__"):
        return ""
    return f"`{thing.__origin__.__name__}`, from `Depends({thing.__metadata__[0].dependency.__name__})`"


def _parameters(thing: Any) -> str:
    if not inspect.isfunction(thing) or thing is init_plugin_manager:
        return ""
    return f"({', '.join(inspect.signature(thing).parameters)})"


def _documented_below(name: str) -> str:
    """Return the docstring below the assignment to this name in some module of the package."""
    for module in [each for key, each in sys.modules.items() if key.startswith("pixsim7_backend")]:
        body = ast.parse(inspect.getsource(module)).body if name in vars(module) else []
        for one, following in pairwise(body):
            if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == name and _is_text(following):
                return _flat(ast.literal_eval(following.value))  # type: ignore[attr-defined]
    return ""


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def options_table() -> Iterator[Row]:
    yield "option", "default", "meaning"
    doc = inspect.getdoc(init_plugin_manager) or ""
    meanings = {
        name: _flat(text)
        for name, text in re.findall(r"^    (\w+): (.*?)(?=^    \w+: |^\S)", doc, re.MULTILINE | re.DOTALL)
    }
    for name, parameter in inspect.signature(init_plugin_manager).parameters.items():
        has_default = parameter.default is not inspect.Parameter.empty
        default = (
            ("the defaults below" if name == "breaker" else _plain(parameter.default)) if has_default else "required"
        )
        yield f"`{name}`", default, meanings[name]


def _plain(value: Any) -> str:
    return "none" if callable(value) else f"`{value!r}`"


def manager_table() -> Iterator[Row]:
    yield "method", "does"
    for name in sorted(dir(PluginManager)):
        method = inspect.getattr_static(PluginManager, name)
        if not name.startswith("_") and inspect.isroutine(method):
            wait = "await " if inspect.iscoroutinefunction(inspect.unwrap(method)) else ""
            parameters = [each for each in inspect.signature(method).parameters if each != "self"]
            yield f"`{wait}{name}({', '.join(parameters)})`", summary(method)


TABLES: dict[str, Callable[[], str]] = {
    name: (lambda make=make: "\n".join(_lines(make())) + "\n")
    for name, make in {
        "manifest": manifest_table,
        "settings": settings_table,
        "plugin-settings": plugin_settings_table,
        "breaker": breaker_table,
        "limits": limits_table,
        "events": events_table,
        "errors": errors_table,
        "metrics": metrics_table,
        "admin": admin_table,
        "options": options_table,
        "manager": manager_table,
        "names": lambda: names_table(plugins, sorted(plugins.__all__, key=str.lower)),
        "admin-names": lambda: names_table(admin, sorted(admin.__all__, key=str.lower)),
        "testing-names": lambda: names_table(testing, sorted(testing.__all__, key=str.lower)),
        "ports-names": lambda: names_table(plugins.ports, plugins.ports.__all__),
        "db-names": lambda: names_table(db, sorted(db.__all__, key=str.lower)),
        "sdk-names": lambda: names_table(sdk, sorted(sdk.__all__, key=str.lower)),
        "open-tables-names": lambda: names_table(tables, ["open_table", "open_tables", "ClosedTableError"]),
        "jails-names": lambda: names_table(jails, sorted(jails.__all__, key=str.lower)),
    }.items()
} | {"commands": commands_text}


def _lines(rows: Iterable[Row]) -> Iterator[str]:
    for number, row in enumerate(rows):
        yield "| " + " | ".join(row) + " |"
        if not number:
            yield "|" + "---|" * len(row)


def made_anew(page: str) -> str:
    """Return the page with every table as the code has it now."""
    return _TABLE.sub(lambda found: f"{found['head']}{TABLES[found['name']]()}", page)


def main() -> None:
    """Write the tables of every page anew."""
    for file in sorted(REFERENCE.glob("*.md")):
        file.write_text(made_anew(file.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
