"""What a registry writes down: a record for each version, an event for each move of an alias."""

from __future__ import annotations

import datetime as dt
import getpass
import hashlib
import json
import socket
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from gpupipe.errors import ConfigError, DataError

FORMAT = 1
CAP = 4 << 20
"""No record is larger, in bytes."""


@dataclass(frozen=True)
class Stamp:
    """Who did something, when (ISO 8601, UTC) and why, under an ``id`` that nothing else has."""

    who: str
    when: str
    why: str
    id: str


def stamp(why: str = "", who: str | None = None) -> Stamp:
    """Now, by ``who`` (or else this process's user on this machine)."""
    return Stamp(who or _user(), dt.datetime.now(dt.UTC).isoformat(timespec="microseconds"), why,
                 uuid.uuid4().hex)


def _user() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        name = "unknown"
    return f"{name}@{socket.gethostname()}"


@dataclass(frozen=True)
class Version:
    """A version of a model: which bundle it is, and where that came from.

    Attributes
    ----------
    digest : SHA-256 of the members' names and hashes: the same bundle has the same digest.
    members : ``{"sha256", "size"}`` of each file of the bundle.
    metrics : each metric's value and interval as the run found them; None for a bare bundle.
    pipeline : the run's pipeline file as data; None for a bare bundle.
    data : the training data's ``fingerprint`` and number of ``rows``.
    """

    name: str
    version: int
    digest: str
    members: Mapping[str, Mapping[str, Any]]
    added: Stamp
    task: str
    target: str | None
    metrics: Mapping[str, Any] | None = None
    pipeline: Mapping[str, Any] | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    run: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, content: bytes, where: str) -> Version:
        return _made(cls, content, where, "added", {"version": int, "name": str, "digest": str,
                                                    "members": dict})


@dataclass(frozen=True)
class Event:
    """A move of an alias: the last one is what the alias is now.

    Attributes
    ----------
    number : 1 for the first of its alias.
    before, version : the versions it was moved from and to; None where it pointed at none.
    action : ``promote``, ``rollback`` or ``retrain``.
    gates : what the gates said, as `gates.Verdict.to_json` gives it; None where none were asked.
    forced : whether it was moved although a gate did not pass.
    after : SHA-256 of the event before it, so that none can be taken out or changed unnoticed.
    sha256 : that of this one as it is written.
    """

    name: str
    alias: str
    number: int
    before: int | None
    version: int
    action: str
    moved: Stamp
    gates: Mapping[str, Any] | None = None
    forced: bool = False
    after: str | None = None
    sha256: str = field(default="", compare=False)

    def to_json(self) -> dict[str, Any]:
        found = {"format": FORMAT, **asdict(self)}
        del found["sha256"]
        return found

    @classmethod
    def from_json(cls, content: bytes, where: str) -> Event:
        made = _made(cls, content, where, "moved", {"number": int, "version": int, "alias": str,
                                                    "name": str})
        return replace(made, sha256=sha256(content))


def encoded(record: Version | Event) -> bytes:
    """A record as it is written. ConfigError where none could be read again."""
    text = json.dumps(record.to_json(), indent=1, ensure_ascii=False, allow_nan=False).encode()
    if len(text) > CAP:
        raise ConfigError(f"the record would take {len(text):,} bytes, and {CAP:,} are allowed",
                          hint="say why in fewer words")
    return text


def digest(members: Mapping[str, Mapping[str, Any]]) -> str:
    """The digest of a bundle, from its members' hashes and sizes."""
    listed = [[name, members[name]["sha256"], members[name]["size"]] for name in sorted(members)]
    return sha256(json.dumps(listed, separators=(",", ":")).encode())


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _made(cls: Any, content: bytes, where: str, stamped: str, types: Mapping[str, type]) -> Any:
    try:
        data = json.loads(content)
        if data.pop("format") != FORMAT:
            raise DataError(f"{where} is of a format that this version does not read",
                            hint="install a newer gpupipe")
        for name, expected in types.items():
            if type(data[name]) is not expected:
                raise ValueError(f"{name} is no {expected.__name__}")
        return cls(**{**data, stamped: Stamp(**data[stamped])})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{where} is not a registry's record: {error}") from None
