from __future__ import annotations

from pathlib import Path

import pytest

from pixsim7_backend.db import database_url_from_environment
from pixsim7_backend.infrastructure.plugins import Allowances, BreakerSettings, Rate
from pixsim7_backend.infrastructure.plugins.errors import ConfigurationError
from pixsim7_backend.plugins.auth.settings import AuthSettings
from pixsim7_backend.plugins.users.settings import UsersSettings
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


def test_isolation_is_pairs_or_a_mapping(empty_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the environment ``name=how``, in the file YAML; another way to run than the two is refused with an example."""
    (empty_place / "config.yaml").write_text("isolation:\n  my-plugin: in-process\ncommunity_floor: Landlock\n")
    assert load_settings().isolation == {"my-plugin": "in-process"}
    assert load_settings().community_floor == "landlock"
    monkeypatch.setenv("ISOLATION", "other=jail, mine = in-process,")
    assert load_settings().isolation == {"other": "jail", "mine": "in-process"}
    monkeypatch.setenv("ISOLATION", "mine")
    with pytest.raises(SettingsError, match="write it like ISOLATION=my-plugin=in-process,other=jail"):
        load_settings()


def test_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """`PORT= make serve` means the default."""
    monkeypatch.setenv("PORT", "")
    monkeypatch.setenv("DATABASE_URL", "")
    assert load_settings().port == 8000


@pytest.mark.parametrize("model", [Settings, AuthSettings, UsersSettings])
def test_one_rule_for_all_variables(
    model: type[Settings | AuthSettings | UsersSettings], empty_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host and its plugins read no `.env` file, and take an empty variable for an unset one."""
    before = model()
    lines = [f"{model.model_config['env_prefix']}{name}=7".upper() for name in model.model_fields]
    (empty_place / ".env").write_text("\n".join(lines))
    for line in lines:
        monkeypatch.setenv(line.partition("=")[0], "")
    assert model() == before


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


def test_when_plugins_are_quarantined_is_the_operators_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default as the platform has it; each threshold by itself, or not at all."""
    assert load_settings().breaker == BreakerSettings()
    monkeypatch.setenv("QUARANTINE_ERROR_RATE", "0.5")
    monkeypatch.setenv("QUARANTINE_PAUSE", "900")
    assert load_settings().breaker == BreakerSettings(error_rate=0.5, pause=900, max_pause=900)
    monkeypatch.setenv("QUARANTINE", "off")
    assert load_settings().breaker is None


def test_what_holds_for_single_plugins_is_a_list_or_a_mapping(
    empty_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pairs in the environment, a mapping in the file; ids in any spelling, `none` for no limit."""
    (empty_place / "config.yaml").write_text(
        "rate_limits: {game_npcs: 100/minute, users: none}\nconcurrency_limits: {a: 3}"
    )
    settings = load_settings()
    assert settings.rate_limits == {"game-npcs": Rate(100, 60), "users": None}
    assert settings.concurrency_limits == {"a": 3}
    assert (settings.community_rate_limit, settings.community_concurrency_limit) == (Rate(600, 60), 64)
    monkeypatch.setenv("RATE_LIMITS", "Game_NPCs=5/second, users=none,")
    monkeypatch.setenv("CONCURRENCY_LIMITS", "a=none")
    monkeypatch.setenv("COMMUNITY_RATE_LIMIT", "none")
    monkeypatch.setenv("COMMUNITY_CONCURRENCY_LIMIT", "None")
    monkeypatch.setenv("ISOLATION", "Their_Plugin=in-process")
    monkeypatch.setenv("COMMUNITY_CALLS", "http.calls=5000,Their_Plugin.db.statements=none")
    settings = load_settings()
    assert settings.community_calls == {"http.calls": 5000, "their-plugin.db.statements": None}
    assert settings.rate_limits == {"game-npcs": Rate(5, 1), "users": None}
    assert settings.concurrency_limits == {"a": None}
    assert (settings.community_rate_limit, settings.community_concurrency_limit) == (None, None)
    assert settings.isolation == {"their-plugin": "in-process"}


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("RATE_LIMITS", "game-npcs", "'game-npcs' is not a list of plugins, each with = and its value"),
        ("RATE_LIMITS", "game-npcs=5", "'5' is not a rate; write it like '100/minute' (second, minute, hour or day)"),
        ("COMMUNITY_RATE_LIMIT", "5/min", "'5/min' is not a rate"),
        ("CONCURRENCY_LIMITS", "game-npcs=0", "input should be greater than or equal to 1"),
        ("COMMUNITY_CALLS", "census.http.rows=7", "'census.http.rows' is nothing that is counted of calls"),
    ],
)
def test_limits_that_are_none(name: str, value: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text says what is wrong, with an example."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert str(error.value).startswith(f"{name}: {problem}")
    assert f"write it like {name}=" in str(error.value)


def test_how_jails_are_run(empty_place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default with their plugins, for ever; what each may use is one setting, in the file a mapping."""
    settings = load_settings()
    assert (settings.jail_start, settings.jail_idle, settings.jail_limits) == ("with-plugin", None, Allowances())
    assert settings.community_plain_http is False
    (empty_place / "config.yaml").write_text(
        "jail_start: First-Request\njail_idle: 900\njail_limits: {threads: 32, census: {memory: 1GiB}}"
    )
    settings = load_settings()
    assert (settings.jail_start, settings.jail_idle) == ("first-request", 900)
    assert settings.jail_limits == Allowances.parse("threads=32,census.memory=1GiB")
    monkeypatch.setenv("JAIL_IDLE", "none")
    monkeypatch.setenv("JAIL_LIMITS", "census.memory=2GiB")
    settings = load_settings()
    assert (settings.jail_idle, settings.jail_limits.of("census").jail.memory) == (None, 2 << 30)
    monkeypatch.setenv("JAIL_IDLE", "0")
    monkeypatch.setenv("JAIL_START", "never")
    monkeypatch.setenv("JAIL_LIMITS", "memory=2")
    example = "memory=512MiB,census.memory=1GiB,census.threads=16"
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value).splitlines() == [
        "JAIL_START: input should be 'with-plugin' or 'first-request'; write it like JAIL_START=first-request",
        "JAIL_IDLE: input should be greater than 0; write it like JAIL_IDLE=900",
        f"JAIL_LIMITS: memory=2 is too little: at least 96MiB is needed; write it like JAIL_LIMITS={example}",
    ]


def test_secrets_are_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither text nor representation of the settings, nor an error, shows a secret."""
    monkeypatch.setenv("SECRET_KEY", "hunter2")
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:hunter2@localhost/x")
    monkeypatch.setenv("REDIS_URL", "redis://:hunter2@localhost")
    settings = load_settings()
    assert "hunter2" not in f"{settings} {settings!r}"
    assert settings.secret_key.get_secret_value() == "hunter2"
