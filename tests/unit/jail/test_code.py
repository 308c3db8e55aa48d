"""Which code a jail may read, and how it finds its plugin."""

from __future__ import annotations

import importlib
import sys
import sysconfig
from pathlib import Path

import pytest

import pixsim7_backend
from pixsim7_backend.infrastructure.plugins._jail.code import find_code, reach_folder


def test_packages_are_code_and_a_checkout_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a project's directory a jail reads the packages that are imported, not what lies beside them."""
    (tmp_path / "used_by_jails").mkdir()
    (tmp_path / "used_by_jails" / "__init__.py").touch()
    (tmp_path / "never_imported").mkdir()
    (tmp_path / ".env").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module("used_by_jails")
    try:
        code = find_code()
    finally:
        del sys.modules["used_by_jails"]
    assert sysconfig.get_path("stdlib") in code
    assert sysconfig.get_path("purelib") in code
    assert str(Path(pixsim7_backend.__file__).parent) in code
    assert str(tmp_path / "used_by_jails") in code
    assert not any(tmp_path == Path(path) or path == str(tmp_path / "never_imported") for path in code)


def test_a_plugin_is_found_without_listing_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a directory of plugins, imports find the one that was named and no other."""
    for name in ("one_plugin", "other_plugin"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("from . import inner\n")
        (tmp_path / name / "inner.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    reach_folder(tmp_path / "one_plugin")
    try:
        importlib.invalidate_caches()
        assert importlib.import_module("one_plugin").inner is sys.modules["one_plugin.inner"]
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("other_plugin")
    finally:
        del sys.path_importer_cache[str(tmp_path)]
        for name in [name for name in sys.modules if name.startswith("one_plugin")]:
            del sys.modules[name]


def test_a_plugin_needs_no_init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without ``__init__.py`` is found as well, as in process."""
    (tmp_path / "bare_plugin").mkdir()
    (tmp_path / "bare_plugin" / "manifest.py").touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    reach_folder(tmp_path / "bare_plugin")
    try:
        importlib.invalidate_caches()
        importlib.import_module("bare_plugin.manifest")
    finally:
        del sys.path_importer_cache[str(tmp_path)]
        for name in [name for name in sys.modules if name.startswith("bare_plugin")]:
            del sys.modules[name]
