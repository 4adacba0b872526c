"""The only reader of the environment. Any variable X may be given as X_FILE, the path of a file that holds it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, IPvAnyNetwork, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

SECRETS_PER_SOURCE_MAX = 8
SECRETS_LOOK_S = 1.0
DEFAULT_DATA_DIR = Path(".odooops")


class BadSettings(ValueError):
    """a setting is missing or wrong; the message names it and the fix"""


class _FromFiles(PydanticBaseSettingsSource):
    """Reads field X from the file that the variable X_FILE names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        variable = f"{field_name.upper()}_FILE"
        path = os.environ.get(variable)
        if not path:
            return None, field_name, False
        try:
            value = _read(variable, path).decode().strip()
        except UnicodeDecodeError:
            raise BadSettings(f"{variable} names a file that is not UTF-8 text") from None
        if not value:
            raise BadSettings(f"{variable} names an empty file")
        return value, field_name, False

    def __call__(self) -> dict[str, Any]:
        values = {
            name: self.get_field_value(field, name)[0]
            for name, field in self.settings_cls.model_fields.items()
        }
        return {name: value for name, value in values.items() if value is not None}


def _listed(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _number(value: object) -> object:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


Port = Annotated[int, Field(ge=0, le=65_535)]
Replicas = Annotated[Literal[1, 3, 5], BeforeValidator(_number)]
"""A Literal of numbers refuses their text, which is all that the environment has."""


def _networks(value: object) -> object:
    """Each part looked at here: pydantic's own words do not say which one is wrong, or why."""
    listed = _listed(value)
    return [ip_network(part) for part in listed] if isinstance(listed, list) else listed


Networks = Annotated[tuple[IPvAnyNetwork, ...], NoDecode, BeforeValidator(_networks)]
"""With commas between: `10.0.0.0/8, fd00::/8, 192.0.2.7`."""


class Settings(BaseSettings):
    """One process's settings. Field names are the variables' names in lower case; an empty one is not set."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, env_ignore_empty=True)

    odooops_data_dir: Path = DEFAULT_DATA_DIR
    odooops_host: str = "127.0.0.1"
    odooops_port: Port = 8420
    odooops_listen_fd: Annotated[int, Field(ge=3)] | None = None
    """A socket that listens already, made by whoever started ingest: then a restart refuses no connection."""
    odooops_ops_host: str = "127.0.0.1"
    odooops_ops_port: Port = 0
    """Port of /readyz and /metrics; 0 serves neither."""
    odooops_ssot_dir: Path = Path("ssot")
    odooops_spool_dir: Path | None = None
    """Where ingest keeps what comes while the broker is away; not set, senders are told to come again."""
    odooops_trusted_proxies: Networks = ()
    """Whose X-Forwarded-For is believed. Not set, nobody's, and only peers with public addresses are limited."""
    odooops_log_format: Literal["json", "console"] = "json"

    otel_exporter_otlp_endpoint: str | None = None
    """Whether traces are sent. The rest of OpenTelemetry's variables is read by its own libraries."""
    otel_exporter_otlp_traces_endpoint: str | None = None
    otel_exporter_otlp_headers: SecretStr | None = None
    otel_traces_exporter: str = "otlp"
    otel_sdk_disabled: bool = False

    nats_url: SecretStr | None = None
    nats_url_ingest: SecretStr | None = None
    nats_url_projector: SecretStr | None = None
    nats_url_notifier: SecretStr | None = None
    nats_url_poller: SecretStr | None = None
    nats_url_reader: SecretStr | None = None
    nats_url_operator: SecretStr | None = None
    nats_replicas: Replicas = 1

    database_url: SecretStr | None = None
    database_url_projector: SecretStr | None = None
    database_url_notifier: SecretStr | None = None
    database_url_reader: SecretStr | None = None
    database_url_operator: SecretStr | None = None

    slack_bot_token: SecretStr | None = None
    slack_channel: str | None = None
    slack_webhook_url: SecretStr | None = None
    slack_api_url: str = "https://slack.com/api"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings, _FromFiles(settings_cls))

    def nats_for(self, user: str) -> str:
        """The broker's address for `user`, or several with commas between: NATS_URL_<USER>, else NATS_URL."""
        return self._address("nats_url", user)

    def database_for(self, user: str) -> str:
        """The database's address for `user`: DATABASE_URL_<USER>; there is no other, each has its own login."""
        own: SecretStr | None = getattr(self, f"database_url_{user}")
        if own is None:
            raise BadSettings(f"DATABASE_URL_{user.upper()} is not set: give the {user}'s own login")
        return own.get_secret_value()

    def migrator_database(self) -> str:
        """The address that may create schemas and roles: DATABASE_URL."""
        if self.database_url is None:
            raise BadSettings("DATABASE_URL is not set: give a login that may create schemas and roles")
        return self.database_url.get_secret_value()

    def _address(self, kind: str, user: str) -> str:
        own: SecretStr | None = getattr(self, f"{kind}_{user}") or getattr(self, kind)
        if own is None:
            raise BadSettings(f"neither {kind.upper()}_{user.upper()} nor {kind.upper()} is set")
        return own.get_secret_value()


def load(**overrides: Any) -> Settings:
    """The settings of this process; raises BadSettings with one sentence per wrong variable."""
    try:
        return Settings(**overrides)
    except ValidationError as error:
        problems = "; ".join(
            f"{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors(include_input=False)
        )
        raise BadSettings(f"wrong settings: {problems}") from None


def secret_values(names: Sequence[str]) -> list[tuple[str, bytes]]:
    """The secrets called `names` that are set, each with its value: from X, and line by line from X_FILE.

    A secret from a file is named `X_FILE:<line>`. Values are taken as they stand: spaces and quotes belong to
    them, only a line's end does not; one of spaces alone is none. At most SECRETS_PER_SOURCE_MAX are taken, more
    is BadSettings.
    """
    found: list[tuple[str, bytes]] = []
    for name in names:
        value = os.environ.get(name)
        if value and value.strip():
            found.append((name, os.fsencode(value)))
        path = os.environ.get(f"{name}_FILE")
        if path:
            lines = _read(f"{name}_FILE", path).splitlines()
            found += [(f"{name}_FILE:{n}", line) for n, line in enumerate(lines, 1) if line.strip()]
    if len(found) > SECRETS_PER_SOURCE_MAX:
        raise BadSettings(
            f"{names[0]}: {len(found)} secrets are set, at most {SECRETS_PER_SOURCE_MAX} are tried"
        )
    return found


class Secrets:
    """The secrets called `names`, read again when a file that holds them changes.

    Files are looked at when they are asked for, at most once in SECRETS_LOOK_S. Where one cannot be read, what was
    read last stays: a file that is being replaced must not refuse a sender who never tries again. An emptied file
    holds no secret.
    """

    def __init__(self, names: Sequence[str], changed: Callable[[list[str], str | None], None]) -> None:
        self._names = names
        self._changed = changed
        """Hears the names of what was read again, or why it was not."""
        self._seen = self._look()
        self._current = secret_values(names)
        self._look_at = time.monotonic() + SECRETS_LOOK_S

    def current(self) -> list[tuple[str, bytes]]:
        """Each secret with its name, as `secret_values` gives them."""
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + SECRETS_LOOK_S
            seen = self._look()
            if seen != self._seen:
                self._seen = seen
                self._read_again()
        return self._current

    def _read_again(self) -> None:
        try:
            self._current = secret_values(self._names)
        except BadSettings as error:
            self._changed([], str(error))
        else:
            self._changed([name for name, _ in self._current], None)

    def _look(self) -> list[tuple[int, int, int] | None]:
        """What tells whether the files are still the same."""
        return [_stamp(path) for name in self._names if (path := os.environ.get(f"{name}_FILE"))]


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _read(variable: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        # Without the path: whoever takes X_FILE for X has put the secret there.
        raise BadSettings(f"{variable} names a file that cannot be read: {error.strerror}") from None
