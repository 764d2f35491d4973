"""What may be configured of a server: `serve.yaml`, and the flags that stand over it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gpupipe.config.check import Misfit, validated
from gpupipe.config.section import ColumnName, Section
from gpupipe.config.source import Origin, read
from gpupipe.config.units import bytes_of, microseconds_of
from gpupipe.errors import ConfigError, EnvironmentFault

HEADER = "header:"
"""How `unit` names a request header instead of a column."""


def _parsed(parse: Any) -> AfterValidator:
    """A text that ``parse`` understands, kept as it was written."""

    def check(value: str) -> str:
        parse(value)
        return value

    return AfterValidator(check)


Duration = Annotated[str, _parsed(microseconds_of)]
Size = Annotated[str, _parsed(bytes_of)]
Share = Annotated[float, Field(gt=0, lt=1)]
Reference = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


def _model(value: Any) -> Any:
    return {"model": value} if isinstance(value, str) else value


class ChallengerConfig(Section):
    """A model that answers a share of the units."""

    model: Reference
    """A bundle's or run's folder, or `REGISTRY/NAME@ALIAS`."""
    share: Share
    """The share of units that it answers."""
    name: Name = "challenger"
    """What log and metrics call it."""


class ShadowConfig(Section):
    """A model that scores every request beside the answer."""

    model: Reference
    """A bundle's or run's folder, or `REGISTRY/NAME@ALIAS`."""
    name: Name = "shadow"
    """What log and metrics call it."""


class LimitsConfig(Section):
    """What a client may ask of the server."""

    body: Size = "8MiB"
    """The largest body of a request; above it 413."""
    rows: Annotated[int, Field(ge=1, le=10_000_000)] = 10_000
    """The most rows of a request; above it 422."""
    queue: Annotated[int, Field(ge=1, le=1_000_000)] = 1024
    """Requests that wait to be scored; above it 503."""
    buffered: Size = "64MiB"
    """Bytes of all bodies being received or answered by a worker; above it 503."""
    connections: Annotated[int, Field(ge=1, le=1_000_000)] = 2048
    """Open connections of a worker; above it 503."""
    header_timeout: Duration = "10s"
    """How long a client may take for a request's head; after it 408."""
    body_timeout: Duration = "30s"
    """How long a client may take for a request's body (408), or to read an answer."""
    keep_alive: Duration = "75s"
    """How long an idle connection stays open."""


class LogConfig(Section):
    """The prediction log."""

    path: Reference
    """The folder, relative to the file; Parquet files in it, a folder a day."""
    features: bool = False
    """Log the raw columns, too."""
    every: Duration = "10s"
    """How often the rows that were scored are written."""
    rows: Annotated[int, Field(ge=1, le=10_000_000)] = 50_000
    """Written sooner where there are so many."""


class ServeConfig(Section):
    """A whole `serve.yaml`."""

    champion: Reference
    """A bundle's or run's folder, or `REGISTRY/NAME@ALIAS`; the command's MODEL."""
    name: Name | None = None
    """What the model is called in paths and answers; default: its own name."""
    challengers: list[ChallengerConfig] = []
    """Models that answer a share of the units each."""
    shadow: list[Annotated[
        ShadowConfig, BeforeValidator(_model, json_schema_input_type=dict[str, Any] | str)
    ]] = []
    """Models that score every request beside the answer."""
    unit: ColumnName | None = None
    """What stays with one model: a column, or `header:NAME`."""
    salt: str | None = None
    """What makes this dealing of units its own; needed with challengers."""
    host: str = "127.0.0.1"
    """The address to listen on."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """The port; 0 takes a free one."""
    workers: Annotated[int, Field(ge=1, le=1024)] = 1
    """Processes that answer on the port."""
    api_keys: str | None = None
    """A file with one key a line; without it, everybody may ask."""
    tls_cert: str | None = None
    """The certificate (chain) as PEM."""
    tls_key: str | None = None
    """Its key as PEM."""
    limits: LimitsConfig = LimitsConfig()
    batch_rows: Annotated[int, Field(ge=1, le=100_000)] = 256
    """Rows that are scored together under load."""
    poll: Duration = "5s"
    """How often an alias or a folder is looked at for another version."""
    drain: Duration = "1s"
    """After SIGTERM: how long requests are still taken, with the answer that the connection
    closes."""
    shutdown: Duration = "30s"
    """After that: how long answers under way may take."""
    log: LogConfig | None = None
    """The prediction log; default: none."""
    access_log: bool = True
    """A line of JSON on stderr for every request."""

    @model_validator(mode="after")
    def _fits(self) -> ServeConfig:
        names = ["champion", *(c.name for c in self.challengers), *(s.name for s in self.shadow)]
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            raise Misfit(f"two models are called {twice[0]!r}", "give each a `name` of its own")
        if self.challengers:
            if sum(c.share for c in self.challengers) >= 1:
                raise Misfit("the challengers' shares leave nothing to the champion",
                             "they have to add up to less than 1", "challengers")
            if not self.unit or not self.salt:
                raise Misfit("challengers need `unit` and `salt`: whose requests stay with one "
                             "model, and how units are dealt",
                             "unit: customer_id (or header:X-User-Id), salt: summer-test",
                             "challengers")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise Misfit("TLS takes a certificate and its key", "give tls_cert and tls_key")
        return self


def seconds(duration: str) -> float:
    """A duration of the configuration in seconds."""
    return microseconds_of(duration) / 1e6


def load_settings(
    path: Path | None, flags: Mapping[str, Any] | None = None, origin: Origin | None = None
) -> ServeConfig:
    """The settings in a file (None: only flags), with ``flags`` over them.

    Paths in a file are relative to it; those among the flags to the current folder. Raises
    ConfigError that names file, line and column.
    """
    raw: dict[str, Any] = {}
    origin = Origin(Path.cwd())
    if path is not None:
        if not path.is_file():
            raise ConfigError("there is no such file of settings", where=str(path),
                              hint="docs/serving.md has one to begin with")
        raw, origin = read(path)
    given = {k: v for k, v in (flags or {}).items() if v is not None}
    if isinstance(given.get("log"), str):
        before = raw.get("log")
        given["log"] = {**(before if isinstance(before, dict) else {}), "path": given["log"]}
    if "champion" not in raw and "champion" not in given:
        raise ConfigError("there is no model to serve",
                          hint="gpupipe serve runs/latest, or `champion` in the file")
    settings = validated(ServeConfig, {**raw, **given}, origin)
    return _resolved(settings, origin.base, set(given)) if path is not None else settings


def _resolved(settings: ServeConfig, base: Path, given: set[str]) -> ServeConfig:
    """Relative paths of the file made absolute."""

    def at(value: str | None) -> str | None:
        if value is None or "://" in value:
            return value
        return str(base / Path(value).expanduser())

    changed: dict[str, Any] = {
        key: at(getattr(settings, key))
        for key in ("champion", "api_keys", "tls_cert", "tls_key") if key not in given
    }
    for key in ("challengers", "shadow"):
        changed[key] = [c.model_copy(update={"model": at(c.model)})
                        for c in getattr(settings, key)]
    if settings.log and "log" not in given:
        changed["log"] = settings.log.model_copy(update={"path": at(settings.log.path)})
    return settings.model_copy(update=changed)


def check_libraries() -> None:
    """EnvironmentFault where a library of the extra `serve` is absent."""
    absent = [name for name in ("fastapi", "uvicorn", "httptools", "orjson")
              if importlib.util.find_spec(name) is None]
    if absent:
        raise EnvironmentFault(f"serving needs {', '.join(absent)}, not installed here",
                               hint="pip install 'gpupipe[serve]'")


def read_keys(path: str) -> tuple[bytes, ...]:
    """The keys of a file: one a line; blank lines and those that begin with # are no keys.

    Raises ConfigError for a file that cannot be read, has no key, or one of under 16 characters.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the API keys cannot be read: {error}", where=path) from None
    keys = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    for number, key in enumerate(keys, 1):
        if len(key) < 16 or not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigError(f"key {number} is no key: 16 printable characters of ASCII or more, "
                              "without blanks", where=path,
                              hint="python -c 'import secrets; print(secrets.token_urlsafe(32))'")
    if not keys:
        raise ConfigError("there is no key in this file", where=path,
                          hint="write one key a line")
    return tuple(key.encode() for key in keys)
