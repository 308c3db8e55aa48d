from __future__ import annotations

from pathlib import Path

import pytest

from pixsim7_backend.db import database_url_from_environment
from pixsim7_backend.infrastructure.plugins.errors import ConfigurationError
from pixsim7_backend.settings import Settings, SettingsError, load_settings


@pytest.fixture(autouse=True)
def empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without config.yaml and an environment without our settings."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path


def test_defaults_need_nothing(empty_place: Path) -> None:
    """Without any setting the backend listens on the loopback address and keeps SQLite under ./data."""
    settings = load_settings()
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8000, 1)
    assert settings.database == "sqlite:///data/pixsim7.sqlite3"
    assert settings.is_embedded
    assert not list(empty_place.iterdir())


def test_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting is an environment variable in capitals; lists are separated by commas."""
    monkeypatch.setenv("PORT", "9000")
    monkeypatch.setenv("EXTRA_PLUGINS_DIRS", "/srv/plugins, mine,")
    monkeypatch.setenv("LOG_LEVEL", "debug")
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:p@localhost/x")
    settings = load_settings()
    assert settings.port == 9000
    assert settings.extra_plugins_dirs == ("/srv/plugins", "mine")
    assert settings.log_level == "DEBUG"
    assert settings.database == "postgresql://u:p@localhost/x"
    assert not settings.is_embedded


def test_environment_wins_over_the_file(empty_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """config.yaml gives what the environment leaves open."""
    (empty_place / "config.yaml").write_text("PORT: 9001\nworkers: 3\nextra-plugins-dirs: [a, b]\nDISABLED_PLUGINS=c\n")
    monkeypatch.setenv("PORT", "9002")
    settings = load_settings()
    assert (settings.port, settings.workers, settings.extra_plugins_dirs) == (9002, 3, ("a", "b"))


def test_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """`PORT= make serve` means the default."""
    monkeypatch.setenv("PORT", "")
    monkeypatch.setenv("DATABASE_URL", "")
    assert load_settings().port == 8000


def test_every_mistake_is_named_with_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """All mistakes are reported at once, each with the setting and a correct example."""
    monkeypatch.setenv("PORT", "abc")
    monkeypatch.setenv("WORKERS", "0")
    monkeypatch.setenv("LOG_FORMAT", "xml")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value).splitlines() == [
        "PORT: input should be a valid integer, unable to parse string as an integer; write it like PORT=8000",
        "WORKERS: input should be greater than or equal to 1; write it like WORKERS=4",
        "LOG_FORMAT: input should be 'auto', 'console' or 'json'; write it like LOG_FORMAT=console",
    ]


def test_broken_file_is_named(empty_place: Path) -> None:
    """A config.yaml that cannot be read is an error that names the file."""
    (empty_place / "config.yaml").write_text("a: [")
    with pytest.raises(ConfigurationError, match=r"config\.yaml"):
        load_settings()


def test_embedded_database_is_the_one_of_the_data_layer() -> None:
    """The settings and the data layer mean the same file by default."""
    assert load_settings().database == database_url_from_environment()


def test_secrets_are_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither text nor representation of the settings, nor an error, shows a secret."""
    monkeypatch.setenv("SECRET_KEY", "hunter2")
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:hunter2@localhost/x")
    monkeypatch.setenv("REDIS_URL", "redis://:hunter2@localhost")
    settings = load_settings()
    assert "hunter2" not in f"{settings} {settings!r}"
    assert settings.secret_key.get_secret_value() == "hunter2"
