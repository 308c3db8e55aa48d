from __future__ import annotations

import importlib

import pytest

PROMISED = {
    "pixsim7_backend.main": ["app", "create_app"],
    "pixsim7_backend.db": ["get_db", "get_db_readonly", "get_async_db", "get_async_db_readonly"],
    "pixsim7_backend.infrastructure.plugins": ["init_plugin_manager", "plugin_hooks", "PluginEvents"],
    "pixsim7_backend.infrastructure.plugins.types": ["PluginManifest"],
    "pixsim7_backend.infrastructure.plugins.testing": ["write_plugin", "plugin_host"],
    "pixsim7_backend.problems": ["Problem", "install_problem_handlers"],
}


@pytest.mark.parametrize(("module", "names"), PROMISED.items(), ids=list(PROMISED))
def test_promised_import_works(module: str, names: list[str]) -> None:
    """What the guide and the README import is where they say."""
    found = importlib.import_module(module)
    assert [name for name in names if not hasattr(found, name)] == []
