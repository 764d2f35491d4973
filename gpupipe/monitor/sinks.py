"""Where alerts are sent: messages, and their delivery to a webhook or a file.

A message is what Prometheus' Alertmanager posts to its webhooks (version "4"), so what receives
those receives these; ``text`` beside it is what chat rooms show. It is made once and sent as the
same bytes however often it is tried: its id, the digest of what it says, is the idempotency key.
Signatures are those of Standard Webhooks (github.com/standard-webhooks, spec of 2023).
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import http.client
import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpupipe.checkpoints import digest
from gpupipe.config.sinks import SinkConfig, WebhookConfig
from gpupipe.config.units import microseconds_of
from gpupipe.errors import ConfigError

LONGEST_PAUSE = 60.0
"""Seconds between two tries, at most; also of what a server asks for by Retry-After."""
AGAIN = (408, 425, 429, 500, 502, 503, 504)
"""Answers after which it is tried again at once; others need somebody to mend something."""

Sleep = Callable[[float], None]


class Undelivered(Exception):  # noqa: N818 - an outcome to be told, named as such
    """A message that did not reach its sink, and why."""


def message_of(model: Mapping[str, Any], news: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A message of some events: ``{"id", "body", "lines"}``, the last two as they are sent."""
    told = [_as_alertmanager(event) for event in news]
    firing = any(a["status"] == "firing" for a in told)
    text = [f"gpupipe: {model['name']}"]
    text += [f"{e['change']}: {e['state']}: {e['text']}" if e["change"] != "resolved" else
             f"resolved: {e['text']}" for e in news]
    body = {
        "version": "4", "groupKey": f"gpupipe/{model['name']}", "truncatedAlerts": 0,
        "status": "firing" if firing else "resolved", "receiver": "gpupipe",
        "groupLabels": {"model": model["name"]}, "commonLabels": {"model": model["name"]},
        "commonAnnotations": {}, "externalURL": "", "alerts": told, "text": "\n".join(text),
    }
    name = digest(body)[:32]
    return {"id": name, "body": json.dumps(body, ensure_ascii=False),
            "lines": "".join(json.dumps({"id": name, **e}, ensure_ascii=False) + "\n"
                             for e in news)}


def _as_alertmanager(event: Mapping[str, Any]) -> dict[str, Any]:
    over = event["change"] == "resolved"
    severity = {"alert": "critical", "warn": "warning"}.get(event["state"], "info")
    return {
        "status": "resolved" if over else "firing",
        "labels": {"alertname": f"gpupipe {event['kind']}", "model": event["model"],
                   "severity": severity, "state": event["state"], **event["labels"]},
        "annotations": {"summary": event["text"], "change": event["change"],
                        "window_start": event["start"], "window_end": event["end"]},
        "startsAt": event["since"], "endsAt": event["when"] if over else "0001-01-01T00:00:00Z",
        "generatorURL": "", "fingerprint": event["fingerprint"],
    }


def send(
    sink: SinkConfig, message: Mapping[str, str], base: Path = Path(), sleep: Sleep = time.sleep
) -> None:
    """Deliver a message. Undelivered where that fails; ConfigError where a variable is not set."""
    if sink.webhook is not None:
        post(sink.webhook, message, sleep)
    elif sink.file is not None:
        append(base / Path(sink.file.path).expanduser(), message["lines"])


def append(path: Path, lines: str) -> None:
    """Add lines to a file in one write, so that those of several processes do not mix."""
    try:
        file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            end = os.fstat(file).st_size
            # What was cut short before (a full disk) must not swallow the next line.
            cut = end > 0 and os.pread(file, 1, end - 1) != b"\n"
            data = (b"\n" if cut else b"") + lines.encode()
            if os.write(file, data) != len(data):
                raise Undelivered(f"{path} took a part of the lines: is the disk full?")
            os.fsync(file)
        finally:
            os.close(file)
    except OSError as error:
        raise Undelivered(f"{path}: {error.strerror or error}") from None


def post(webhook: WebhookConfig, message: Mapping[str, str], sleep: Sleep = time.sleep) -> None:
    """POST a message, and again where the server is busy or away: `WebhookConfig.retries` times.

    Pauses are drawn from 0 to 1, 2, 4, ... seconds ("full jitter": M. Brooker, AWS Architecture
    Blog, 2015), or are what Retry-After asks for.
    """
    url = webhook.url or variable(webhook.url_env or "")
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"${webhook.url_env} has no address of a webhook",
                          hint="an address begins with https://")
    body, why = message["body"].encode(), ""
    for attempt in range(webhook.retries + 1):
        # Signed anew: receivers refuse signatures of some minutes ago.
        request = urllib.request.Request(url, body, headers_of(webhook, message), method="POST")
        asked: float | None = None
        try:
            with _OPENER.open(request, timeout=microseconds_of(webhook.timeout) / 1e6):
                return
        except urllib.error.HTTPError as error:
            why = f"it answered {error.code} {error.reason}"
            asked = _seconds(error.headers.get("Retry-After"))
            error.close()
            if error.code not in AGAIN:
                break
        except (OSError, ValueError, http.client.HTTPException) as error:
            why = str(getattr(error, "reason", error)) or type(error).__name__
        if attempt < webhook.retries:
            pause = random.uniform(0, 2**attempt) if asked is None else asked
            sleep(min(pause, LONGEST_PAUSE))
    raise Undelivered(why)


def headers_of(webhook: WebhookConfig, message: Mapping[str, str]) -> dict[str, str]:
    """The headers of a message now: its key, and a signature and token where they are wanted."""
    now = str(int(time.time()))
    headers = {
        "Content-Type": "application/json", "User-Agent": "gpupipe",
        "Idempotency-Key": message["id"], "webhook-id": message["id"], "webhook-timestamp": now,
    }
    if webhook.secret_env is not None:
        signed = signature(variable(webhook.secret_env), message["id"], now, message["body"])
        headers["webhook-signature"] = signed
    if webhook.token_env is not None:
        headers["Authorization"] = f"Bearer {variable(webhook.token_env)}"
    return headers


def signature(secret: str, name: str, timestamp: str, body: str) -> str:
    """``v1,`` and the base64 of HMAC-SHA256 over id, timestamp and body, with dots between.

    A secret ``whsec_...`` is base64, as Standard Webhooks have it; any other is taken as it is.
    """
    key = secret.encode()
    if secret.startswith("whsec_"):
        try:
            key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except ValueError:
            raise ConfigError("the webhook's secret begins with whsec_ and is no base64",
                              hint="leave whsec_ out, or give the secret as it was made") from None
    made = hmac.new(key, f"{name}.{timestamp}.{body}".encode(), hashlib.sha256).digest()
    return "v1," + base64.b64encode(made).decode()


def check_sinks(sinks: Sequence[SinkConfig]) -> None:
    """ConfigError where a variable that a sink names is not set: before any work, not after it."""
    for webhook in (s.webhook for s in sinks if s.webhook is not None):
        for name in (webhook.url_env, webhook.secret_env, webhook.token_env):
            if name is not None:
                variable(name)


def variable(name: str) -> str:
    """An environment variable. ConfigError where it is not set."""
    value = os.environ.get(name)
    if not value:
        raise ConfigError(f"the environment variable {name} is not set",
                          hint=f"the pipeline file's `sinks` name it: export {name}=...")
    return value


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would turn a POST into a GET, and carry the token elsewhere."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def _seconds(header: str | None) -> float | None:
    return float(header) if header and header.isdigit() else None
