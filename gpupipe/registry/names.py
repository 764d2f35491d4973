"""What models, aliases and references to them are called."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from gpupipe.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*")
"""Letters, digits, ``_``, ``-``, and dots inside: never ``..``, a separator or a hidden file."""
ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
"""Begins with a letter: a number is a version."""
VERSION = re.compile(r"[1-9][0-9]{0,7}")
LONGEST = 100


class Reference(NamedTuple):
    """``REGISTRY/NAME@ALIAS_OR_VERSION``, taken apart."""

    registry: str
    name: str
    at: str


def model_name(text: str) -> str:
    """``text`` if it may be a model's name, else ConfigError."""
    return _checked(text, NAME, "a model's name", "letters, digits, '_', '-', and dots inside")


def alias_name(text: str) -> str:
    """``text`` if it may be an alias, else ConfigError."""
    return _checked(text, ALIAS, "an alias", "a letter, then letters, digits, '_', '-'")


def is_version(text: str) -> bool:
    """Whether it is a version's number."""
    return VERSION.fullmatch(text) is not None


def split_name(text: str) -> tuple[str, str]:
    """``REGISTRY/NAME`` as the two; ConfigError where it is not that."""
    registry, slash, name = text.rstrip("/").rpartition("/")
    if not slash or registry.endswith((":", ":/")):
        raise ConfigError("expected REGISTRY/NAME: a registry's folder or URL, then the model's "
                          "name", where=text, hint="such as models/churn")
    return registry or "/", model_name(name)


def split_reference(text: str) -> Reference:
    """``REGISTRY/NAME@ALIAS_OR_VERSION`` as the three; ConfigError where it is not that."""
    model, sign, at = text.rpartition("@")
    if not sign or "/" in at or model.endswith("/"):
        raise ConfigError("expected REGISTRY/NAME@ALIAS or REGISTRY/NAME@VERSION", where=text,
                          hint="such as models/churn@champion or models/churn@7")
    return Reference(*split_name(model), at if is_version(at) else alias_name(at))


def is_reference(text: str) -> bool:
    """Whether a model's reference names a registry rather than a folder that is there."""
    return "://" in text or ("@" in text.rpartition("/")[2] and not Path(text).is_dir())


def _checked(text: str, pattern: re.Pattern[str], what: str, rule: str) -> str:
    if len(text) > LONGEST or not pattern.fullmatch(text):
        shown = text if len(text) <= LONGEST else text[:LONGEST] + "..."
        raise ConfigError(f"{shown!r} cannot be {what}",
                          hint=f"{rule}; at most {LONGEST} characters")
    return text
