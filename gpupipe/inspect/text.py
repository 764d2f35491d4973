"""Pieces of a pipeline file: a value, and the keys that a finding proposes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from gpupipe.config.source import parse


def scalar(value: str | int | float | bool) -> str:
    """A value as YAML that reads back as the same value: plain where that is safe."""
    if not isinstance(value, str):
        return json.dumps(value)
    escaped = (
        f"\\{ch}" if ch in '"\\' else ch if ch.isprintable() else f"\\U{ord(ch):08x}"
        for ch in value
    )
    quoted = '"' + "".join(escaped) + '"'
    safe = value.replace("_", "a").replace("-", "a").replace(".", "a").replace("/", "a")
    if not (safe.isascii() and safe.isalnum()) or value[0] in "-.":
        return quoted
    if value.lower() in ("yes", "no", "on", "off", "y", "n"):
        return quoted  # text either way, but other readers of YAML disagree
    raw, _ = parse(f"a: {value}", "", Path())
    return value if raw["a"] == value else quoted


def flow(names: Sequence[str]) -> str:
    """Names as a list on one line."""
    return f"[{', '.join(map(scalar, names))}]"


def drop(*names: str) -> str:
    """What leaves columns out."""
    return f"data: {{drop: {flow(names)}}}"


def by_group(names: Sequence[str]) -> str:
    """What keeps equal values on one side of every split."""
    return f"split: {{by: group, group: {flow(names)}}}"


def by_time(name: str, gap: str | None = None) -> str:
    """What judges by the newest rows, after a gap."""
    return f"split: {{by: time, time: {scalar(name)}{f', gap: {gap}' if gap else ''}}}"
