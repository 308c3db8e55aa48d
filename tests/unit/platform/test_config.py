"""The operator's settings for plugins: environment and config.yaml."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

from pixsim7_backend.infrastructure.plugins._settings.config import PluginConfig, read_config, read_config_file
from pixsim7_backend.infrastructure.plugins.errors import ConfigurationError

BOTH = frozenset({"experimental-feature", "beta-api"})


def from_file(directory: Path, text: str | bytes) -> PluginConfig:
    """Read a config.yaml with this text and an empty environment."""
    (directory / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_config({}, directory)


def refusal(directory: Path, text: str | bytes) -> ConfigurationError:
    """Read a config.yaml that cannot be used."""
    with pytest.raises(ConfigurationError) as caught:
        from_file(directory, text)
    return caught.value


def test_without_any_setting_nothing_is_disabled(tmp_path: Path) -> None:
    """Neither environment nor file: the defaults."""
    assert read_config({}, tmp_path) == PluginConfig(disabled_plugins=frozenset(), on_plugin_error=None, redis_url="")


@pytest.mark.parametrize(
    "value",
    [
        "experimental-feature,beta-api",
        "experimental_feature, Beta_API",
        " experimental-feature ,, beta-api, ",
        "experimental-feature beta-api",
        "beta-api\nexperimental-feature\n",
    ],
)
def test_the_environment_variable_in_any_spelling(tmp_path: Path, value: str) -> None:
    """Hyphens or underscores, blanks and empty items."""
    assert read_config({"DISABLED_PLUGINS": value}, tmp_path).disabled_plugins == BOTH


@pytest.mark.parametrize(
    "text",
    [
        "DISABLED_PLUGINS=experimental-feature,beta-api",
        "# In config.yaml or env var\nDISABLED_PLUGINS=experimental-feature,beta-api\n",
        "DISABLED_PLUGINS = 'experimental-feature, beta-api'  # off for now\n",
        "DISABLED_PLUGINS: experimental-feature,beta-api",
        "disabled_plugins: [experimental_feature, beta-api]",
        "disabled-plugins:\n  - experimental-feature\n  - beta_api\n",
        "other: {deep: [1, 2]}\nDISABLED_PLUGINS=experimental-feature,beta-api\nmore: 1.5\n",
        "\ufeffDisabled_Plugins: >\n  experimental-feature,\n  beta-api\n",
        "DISABLED_PLUGINS: experimental-feature,beta-api\r\n",
    ],
)
def test_the_file_in_every_form(tmp_path: Path, text: str) -> None:
    """YAML text or list, the guide's literal line, or a mixture; any case of the name."""
    assert from_file(tmp_path, text).disabled_plugins == BOTH


def test_the_environment_wins_even_when_it_is_empty(tmp_path: Path) -> None:
    """``DISABLED_PLUGINS=`` in the environment enables what the file disables."""
    (tmp_path / "config.yaml").write_text("DISABLED_PLUGINS: beta-api\nON_PLUGIN_ERROR: strict\n")
    assert read_config({"DISABLED_PLUGINS": "x"}, tmp_path).disabled_plugins == {"x"}
    assert read_config({"DISABLED_PLUGINS": ""}, tmp_path).disabled_plugins == frozenset()
    assert read_config({"disabled_plugins": "x", "DISABLED_PLUGINS": "y"}, tmp_path).disabled_plugins == {"y"}
    assert read_config({"DISABLED_PLUGINS": "x"}, tmp_path).on_plugin_error == "strict"


def test_the_other_settings(tmp_path: Path) -> None:
    """``REDIS_URL`` and ``ON_PLUGIN_ERROR`` from the same places."""
    found = from_file(tmp_path, "redis_url: redis://localhost:6379/0\non_plugin_error: Strict\ndisabled_plugins:\n")
    assert found == PluginConfig(on_plugin_error="strict", redis_url="redis://localhost:6379/0")


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n", "---\n", "other: 1\n"])
def test_a_file_that_sets_nothing(tmp_path: Path, text: str) -> None:
    """An empty file is fine."""
    assert from_file(tmp_path, text) == PluginConfig()


def test_another_file_by_environment(tmp_path: Path) -> None:
    """``PIXSIM7_CONFIG`` is relative to the working directory, or absolute, and must exist."""
    (tmp_path / "other.yaml").write_text("DISABLED_PLUGINS=beta-api")
    (tmp_path / "config.yaml").write_text("DISABLED_PLUGINS=not-this")
    for name in ("other.yaml", str(tmp_path / "other.yaml")):
        assert read_config({"PIXSIM7_CONFIG": name}, tmp_path).disabled_plugins == {"beta-api"}
    with pytest.raises(ConfigurationError) as caught:
        read_config({"PIXSIM7_CONFIG": "absent.yaml"}, tmp_path)
    assert str(caught.value) == f"{tmp_path}/absent.yaml: does not exist; correct PIXSIM7_CONFIG, or unset it"


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("a: 1\nb: [1,\n", 3, "is not valid YAML: "),
        ("a: 1\n\tb: 2\n", 2, "is not valid YAML: "),
        ("a: 1\nb: !!python/object:os.system x\n", 2, "is not valid YAML: could not determine a constructor"),
        ("a: 2024-99-99\n", None, "is not valid YAML: month must be in 1..12"),
        (b"a: 1\nb: \xff\n", 2, "is not UTF-8; save it as UTF-8"),
        ("a: \x01\n", None, "is not valid YAML: unacceptable character"),
        ("- beta-api\n", None, "holds a list, not names with values; write it like DISABLED_PLUGINS: "),
        ("beta-api\n", None, "holds a str, not names with values"),
        ("disabled_plugins: 3\n", None, "DISABLED_PLUGINS is 3, not names; write it like DISABLED_PLUGINS: "),
        ("disabled_plugins: [a, {b: c}]\n", None, "DISABLED_PLUGINS is ['a', {'b': 'c'}], not names"),
        ("on_plugin_error: panic\n", None, "ON_PLUGIN_ERROR is 'panic'; it is either 'tolerate' or 'strict'"),
        ("on_plugin_error: [strict]\n", None, "ON_PLUGIN_ERROR is ['strict'], not a text"),
        ("redis_url: 6379\n", None, "REDIS_URL is 6379, not a text"),
    ],
)
def test_a_file_that_cannot_be_used_is_a_typed_error(
    tmp_path: Path, text: str | bytes, line: int | None, problem: str
) -> None:
    """It names the file, the line where it is known, and what to write."""
    error = refusal(tmp_path, text)
    where = f"{tmp_path}/config.yaml" + (f":{line}" if line else "")
    assert str(error).startswith(f"{where}: {problem}")
    assert error.plugin == ""


def test_a_wrong_value_in_the_environment_names_the_environment(tmp_path: Path) -> None:
    """The operator need not search the file for it."""
    with pytest.raises(ConfigurationError, match=r"^environment: ON_PLUGIN_ERROR is 'x'"):
        read_config({"ON_PLUGIN_ERROR": "x"}, tmp_path)


def test_a_directory_in_place_of_the_file(tmp_path: Path) -> None:
    """What cannot be read is an error, not an empty file."""
    (tmp_path / "config.yaml").mkdir()
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        read_config({}, tmp_path)


def test_yaml_needs_pyyaml_and_the_plain_line_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The platform's core works without PyYAML; the error says what to install."""
    original = builtins.__import__

    def without_yaml(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "yaml":
            raise ModuleNotFoundError("No module named 'yaml'", name="yaml")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_yaml)
    assert from_file(tmp_path, "# comment\n\nDISABLED_PLUGINS=beta-api\n").disabled_plugins == {"beta-api"}
    assert "run `pip install pyyaml`" in str(refusal(tmp_path, "disabled_plugins: beta-api"))


def test_the_values_of_a_file_for_other_settings(tmp_path: Path) -> None:
    """Names come in capitals with underscores, values as YAML has them."""
    file = tmp_path / "config.yaml"
    file.write_text("port: 8000\nLOG_LEVEL=DEBUG\nextra-plugins-dirs: [a, b]\n")
    assert read_config_file(file) == {"PORT": 8000, "LOG_LEVEL": "DEBUG", "EXTRA_PLUGINS_DIRS": ["a", "b"]}
    assert read_config_file(tmp_path / "absent.yaml") == {}
