"""Tells mypy that ``Base = plugin_base("my-plugin")`` is a class that models may derive from.

Add it to the configuration: ``plugins = ["pixsim7_backend.db.mypy_plugin"]``.
"""

from __future__ import annotations

from collections.abc import Callable

from mypy.nodes import GDEF, SymbolTableNode, TypeInfo
from mypy.plugin import DynamicClassDefContext, Plugin
from mypy.types import Instance

_FACTORY = "pixsim7_backend.db.models.plugin_base"
_BASE = "pixsim7_backend.db.models.PluginBase"


class PluginBasePlugin(Plugin):
    """Makes a class of each call of ``plugin_base``."""

    def get_dynamic_class_hook(self, fullname: str) -> Callable[[DynamicClassDefContext], None] | None:
        return _define_base if fullname == _FACTORY else None


def _define_base(context: DynamicClassDefContext) -> None:
    found = context.api.lookup_fully_qualified_or_none(_BASE)
    if found is None or not isinstance(found.node, TypeInfo):
        context.api.defer()
        return
    info = context.api.basic_new_typeinfo(context.name, Instance(found.node, []), context.call.line)
    context.api.add_symbol_table_node(context.name, SymbolTableNode(GDEF, info))


def plugin(_version: str) -> type[Plugin]:
    """Entry point of mypy."""
    return PluginBasePlugin
