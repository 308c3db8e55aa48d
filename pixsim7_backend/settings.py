"""What an operator can set: environment variables, else ``config.yaml``, else the defaults here."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from pixsim7_backend.infrastructure.plugins import (
    Allowances,
    BreakerSettings,
    Isolation,
    JailStart,
    Rate,
    normalize_plugin_id,
    read_config_file,
)
from pixsim7_backend.logging import LogFormat

_BREAKER = BreakerSettings()
_CALLS = re.compile(
    r"(?:[a-z0-9-]+\.)?(?:(?:db|redis|http|events)\.(?:calls|milliseconds|bytes)|db\.(?:statements|rows))"
)
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


class SettingsError(ValueError):
    """Settings are unusable; the text has one line per setting, with a correct example."""


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _split_pairs(value: Any) -> Any:
    """Return the mapping that ``a=1,b=2`` stands for."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in _split(value)]
    if not all(sign for _, sign, _ in pairs):
        raise ValueError(f"{value!r} is not a list of plugins, each with = and its value")
    return {name.strip(): wanted.strip() for name, _, wanted in pairs}


def _by_id(value: Mapping[str, Any]) -> Mapping[str, Any]:
    return {normalize_plugin_id(name): wanted for name, wanted in value.items()}


def _check_calls(value: Mapping[str, Any]) -> Mapping[str, Any]:
    for name in value:
        if not _CALLS.fullmatch(name):
            raise ValueError(f"{name!r} is nothing that is counted of calls")
    return value


def _none(value: Any) -> Any:
    return None if isinstance(value, str) and value.strip().lower() == "none" else value


def _rate(value: Any) -> Any:
    return value if value is None or isinstance(value, Rate) else Rate.parse(str(value))


def _allowances(value: Any) -> Any:
    return value if isinstance(value, Allowances) else Allowances.parse(value)


OptionalRate = Annotated[Rate | None, BeforeValidator(_rate), BeforeValidator(_none)]
OptionalCount = Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(_none)]
OptionalSeconds = Annotated[Annotated[float, Field(gt=0, allow_inf_nan=False)] | None, BeforeValidator(_none)]
Rates = Annotated[Mapping[str, OptionalRate], NoDecode, BeforeValidator(_split_pairs), AfterValidator(_by_id)]
Counts = Annotated[Mapping[str, OptionalCount], NoDecode, BeforeValidator(_split_pairs), AfterValidator(_by_id)]
Isolations = Annotated[Mapping[str, Isolation], NoDecode, BeforeValidator(_split_pairs), AfterValidator(_by_id)]
CallLimits = Annotated[Counts, AfterValidator(_check_calls)]
Floor = Literal["none", "limits", "landlock", "confined", "namespaced"]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """All settings of the host, frozen; a field's environment variable is its name in capitals.

    Read them with :func:`load_settings`, which turns mistakes into one readable :class:`SettingsError`.
    Not here: ``DISABLED_PLUGINS`` and ``ON_PLUGIN_ERROR``, which the platform reads itself from the
    same two places, and what belongs to a single plugin.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True, hide_input_in_errors=True)

    data_dir: Path = Field(default=Path("data"), examples=["/var/lib/pixsim7"])
    """Where the embedded database and generated secrets live; made when first needed."""
    database_url: SecretStr = Field(default=SecretStr(""), examples=["postgresql://user:password@localhost/pixsim7"])
    """Empty: SQLite under ``data_dir``."""
    redis_url: SecretStr = Field(default=SecretStr(""), examples=["redis://localhost:6379/0"])
    """Empty: there is no Redis, and plugins that require it are blocked."""
    secret_key: SecretStr = Field(default=SecretStr(""), examples=["the output of `openssl rand -base64 48`"])
    """Signs tokens. Empty: a random one is made and kept under ``data_dir``."""
    debug: bool = Field(default=False, examples=["true"])
    """Let the server start with a weak ``secret_key``; not for production."""

    host: str = Field(default="127.0.0.1", min_length=1, examples=["0.0.0.0"])  # noqa: S104  # an example, not a default
    """Address to listen on."""
    port: int = Field(default=8000, ge=0, le=65535, examples=["8000"])
    """Port to listen on."""
    workers: int = Field(default=1, ge=1, le=1024, examples=["4"])
    """Server processes; with more than one, plugins cannot be changed while they run."""
    shutdown_timeout: int = Field(default=10, ge=0, examples=["10"])
    """Seconds that running requests get to finish when the server stops."""

    log_format: Annotated[LogFormat, BeforeValidator(_lower)] = Field(default=LogFormat.AUTO, examples=["console"])
    """``console``, ``json``, or ``auto``: the console format on a terminal, JSON elsewhere."""
    log_level: Annotated[LogLevel, BeforeValidator(_upper)] = Field(default="INFO", examples=["INFO"])
    """The least important lines to write: ``DEBUG``, ``INFO``, ``WARNING``, ``ERROR`` or ``CRITICAL``."""

    plugins_dir: str = Field(default="pixsim7_backend/plugins", min_length=1, examples=["pixsim7_backend/plugins"])
    """Relative: under the working directory, else beside the installed package."""
    extra_plugins_dirs: Names = Field(default=(), examples=["/srv/plugins,./my_plugins"])
    """Further directories with plugins, separated by commas."""
    community_plugins_dir: str = Field(default="community_plugins", min_length=1, examples=["/srv/community_plugins"])
    """Plugins of strangers, which run confined; `pixsim7 plugins add` puts them here. It may be missing."""
    isolation: Isolations = Field(default={}, examples=["my-plugin=in-process,other=jail"])
    """How a plugin of that directory runs: ``jail``, or ``in-process`` if its code is trusted as the server's own."""
    community_floor: Annotated[Floor, BeforeValidator(_lower)] = Field(default="confined", examples=["confined"])
    """The least level of confinement at which they run; `pixsim7 doctor` shows what this machine reaches."""
    community_plain_http: bool = Field(default=False, examples=["true"])
    """Let them send requests without encryption, too, to the hosts that were granted: http:// and not only https://."""
    jail_start: Annotated[JailStart, BeforeValidator(_lower)] = Field(default="with-plugin", examples=["first-request"])
    """When the process of a community plugin is started: ``with-plugin``, or ``first-request`` (or event)."""
    jail_idle: OptionalSeconds = Field(default=None, examples=["900"])
    """Seconds without request and event after which it is stopped, until the next one; ``none``: it stays."""
    jail_limits: Annotated[Allowances, NoDecode, BeforeValidator(_allowances)] = Field(
        default=Allowances(), examples=["memory=512MiB,census.memory=1GiB,census.threads=16"]
    )
    """What it may use, and what single plugins may, over the defaults."""
    hook_timeout: float = Field(default=10.0, gt=0, examples=["10"])
    """Seconds that ``on_load``, ``on_enable`` and ``on_disable`` of a plugin may take each."""
    reload_plugins: bool = Field(default=False, examples=["true"])
    """Watch the plugin directories and replace plugins as their files change."""
    reload_migrations: bool = Field(default=False, examples=["true"])
    """Let a plugin that is replaced or added while the server runs migrate its tables; else it is refused."""
    install_max_bytes: int = Field(default=64 * 1024 * 1024, gt=0, examples=["67108864"])
    """Size of a plugin that may be installed, all files together."""
    install_max_file_bytes: int = Field(default=16 * 1024 * 1024, gt=0, examples=["16777216"])
    """Size of one file of it."""
    install_max_files: int = Field(default=4000, gt=0, examples=["4000"])
    """Files and folders in it."""
    install_max_ratio: int = Field(default=100, gt=0, examples=["100"])
    """How many times the size of its archive it may unpack to."""
    install_max_depth: int = Field(default=16, gt=0, examples=["16"])
    """How deep its folders may be nested."""
    safe_mode: bool = Field(default=False, examples=["true"])
    """Start the required plugins only, and what they need."""
    remember_crashes: bool = Field(default=True, examples=["false"])
    """After a start that ended in a plugin, start without that plugin; the notes are under ``data_dir``."""
    quarantine: bool = Field(default=True, examples=["false"])
    """Take plugins out of service for a while that fail too often, as the next settings say."""
    quarantine_window: float = Field(default=_BREAKER.window, gt=0, examples=["60"])
    """Seconds within which it must happen."""
    quarantine_min_requests: int = Field(default=_BREAKER.min_requests, ge=1, examples=["100"])
    """Fewer requests than this say nothing about how many fail."""
    quarantine_error_rate: float = Field(default=_BREAKER.error_rate, gt=0, le=1, examples=["0.5"])
    """Share of a plugin's requests that must fail by its own fault."""
    quarantine_endpoints: int = Field(default=_BREAKER.endpoints, ge=1, examples=["2"])
    """So many of its endpoints (all, where it has fewer) must fail; no one of them counts for more than these."""
    quarantine_timeouts: int = Field(default=_BREAKER.timeouts, ge=1, examples=["10"])
    """Event handlers that take longer than they may."""
    quarantine_blocked: float = Field(default=_BREAKER.stalled, gt=0, examples=["10"])
    """Seconds for which a plugin blocks the event loop."""
    quarantine_pause: float = Field(default=_BREAKER.pause, gt=0, examples=["10"])
    """Seconds until it is tried again; doubled, up to ten minutes, each time that this fails."""
    rate_limits: Rates = Field(default={}, examples=["game-npcs=100/minute,game-worlds=none"])
    """What one client may ask of some plugins, whatever their manifests say."""
    community_rate_limit: OptionalRate = Field(default=Rate(600, 60), examples=["600/minute"])
    """What one client may ask of a community plugin that claims no rate, or a higher one; ``none``: what it claims."""
    concurrency_limits: Counts = Field(default={}, examples=["game-npcs=32"])
    """How many requests some plugins serve at once in one process; ``none``: any number."""
    community_concurrency_limit: OptionalCount = Field(default=64, examples=["64"])
    """The same for other community plugins."""
    community_calls: CallLimits = Field(default={}, examples=["http.calls=5000,census.db.milliseconds=none"])
    """What community plugins, or one, may use in a minute of what they call: of `db`, `redis`, `http` or `events` the
    `calls`, `milliseconds` and `bytes`, of `db` also `statements` and `rows`."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _ConfigFile(settings_cls)

    @property
    def database(self) -> str:
        """The SQLAlchemy URL of the database."""
        return self.database_url.get_secret_value() or f"sqlite:///{self.data_dir / 'pixsim7.sqlite3'}"

    @property
    def breaker(self) -> BreakerSettings | None:
        """When a plugin is quarantined; None: never."""
        if not self.quarantine:
            return None
        return BreakerSettings(
            window=self.quarantine_window,
            min_requests=self.quarantine_min_requests,
            error_rate=self.quarantine_error_rate,
            endpoints=self.quarantine_endpoints,
            timeouts=self.quarantine_timeouts,
            stalled=self.quarantine_blocked,
            pause=self.quarantine_pause,
            max_pause=max(self.quarantine_pause, _BREAKER.max_pause),
        )

    @property
    def starts_dir(self) -> Path:
        """Where it is noted what a start is at."""
        return self.data_dir / "starts"

    @property
    def is_embedded(self) -> bool:
        """The database is the embedded default: nobody else migrates it, so the server does when it starts."""
        return not self.database_url.get_secret_value()


class _ConfigFile(PydanticBaseSettingsSource):
    """The values of ``config.yaml`` in the working directory, or of the file that ``PIXSIM7_CONFIG`` names."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        values = read_config_file(Path(os.environ.get("PIXSIM7_CONFIG", "").strip() or "config.yaml"))
        found = {name: values.get(name.upper()) for name in self.settings_cls.model_fields}
        return {name: value for name, value in found.items() if value is not None}


def load_settings(**overrides: Any) -> Settings:
    """Return the settings now in force; ``overrides`` win over everything.

    Raises:
        SettingsError: one or more values are unusable.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        lines = [_line(problem) for problem in error.errors(include_input=False, include_url=False)]
        raise SettingsError("\n".join(lines)) from None


def _line(problem: Mapping[str, Any]) -> str:
    name = str(problem["loc"][0])
    example = Settings.model_fields[name].examples or [""]
    what = str(problem["msg"]).removeprefix("Value error, ")
    return f"{name.upper()}: {what[0].lower()}{what[1:]}; write it like {name.upper()}={example[0]}"


__all__ = ["LogLevel", "Settings", "SettingsError", "load_settings"]
