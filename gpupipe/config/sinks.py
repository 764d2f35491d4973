"""Where alerts are sent: the `sinks` of a pipeline file's `monitor` section."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from gpupipe.config.check import Misfit
from gpupipe.config.section import Section, short
from gpupipe.config.units import microseconds_of


def _duration(value: str) -> str:
    microseconds_of(value)
    return value


def _url(value: str) -> str:
    if urlsplit(value).scheme not in ("http", "https") or not urlsplit(value).hostname:
        raise Misfit(f"{value!r} is no address of a webhook", "write https://HOST/PATH")
    return value


Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
"""The name of an environment variable."""


class WebhookConfig(Section):
    """An HTTP address to which alerts are posted as JSON."""

    url: Annotated[str, AfterValidator(_url)] | None = None
    """The address; where it is a secret itself, name it by `url_env`."""
    url_env: Variable | None = None
    """The environment variable that has the address."""
    secret_env: Variable | None = None
    """The environment variable that has the secret by which messages are signed."""
    token_env: Variable | None = None
    """The environment variable that has a bearer token."""
    timeout: Annotated[str, AfterValidator(_duration)] = "10s"
    """How long one try may take."""
    retries: Annotated[int, Field(ge=0, le=20)] = 3
    """Further tries, after a second, two, four and so on, drawn at random up to that."""

    @model_validator(mode="after")
    def _one_address(self) -> WebhookConfig:
        if (self.url is None) == (self.url_env is None):
            raise Misfit("a webhook has an address: either `url` or `url_env`",
                         "webhook: {url_env: ALERT_URL} takes it from the environment")
        return self


class AlertFileConfig(Section):
    """A file to which alerts are added, a line of JSON each."""

    path: Annotated[str, Field(min_length=1)]
    """The file; a relative path begins at the pipeline file's folder."""


class SinkConfig(Section):
    """One place where alerts are told: a webhook or a file."""

    webhook: Annotated[WebhookConfig | None, short("url")] = None
    """Posted as JSON."""
    file: Annotated[AlertFileConfig | None, short("path")] = None
    """Added as lines of JSON."""

    @model_validator(mode="after")
    def _one(self) -> SinkConfig:
        if (self.webhook is None) == (self.file is None):
            raise Misfit("a sink is a webhook or a file", "sinks: [{file: alerts.jsonl}]")
        return self

    @property
    def name(self) -> str:
        """What it is called in the history and in warnings; no path or query of an address."""
        if self.file is not None:
            return f"file {self.file.path}"
        assert self.webhook is not None
        if self.webhook.url is None:
            return f"webhook ${self.webhook.url_env}"
        parts = urlsplit(self.webhook.url)
        return f"webhook {parts.scheme}://{parts.hostname}" + (
            f":{parts.port}" if parts.port else "")
