"""The registry: immutable versions of models, and aliases that are moved between them.

    registry.json                          that it is one, and of which format
    NAME/bundles/DIGEST/bundle.json ...    the members of a bundle, under the digest of them all
    NAME/versions/00000007.json            version 7: its digest, who added it, when, why, metrics
    NAME/aliases/champion/00000003.json    the alias's third move: from, to, who, when, why, gates

Everything is created once and never changed. A version's record is created last, so a bundle that
was half copied is no version. An alias *is* the last of its moves: the next is created only
where no other has been, so of two moves from the same place one wins, and the history cannot
disagree with what the alias points at.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpupipe.bundle.store import CAPS
from gpupipe.checkpoints import crash_point
from gpupipe.errors import DataError, GateError, did_you_mean
from gpupipe.registry.names import ALIAS, NAME, alias_name, is_version, model_name
from gpupipe.registry.records import (
    CAP,
    Event,
    Stamp,
    Version,
    digest,
    encoded,
    sha256,
    stamp,
)
from gpupipe.registry.store import Store, open_store

MARK, FORMAT = "registry.json", 1


class Conflict(GateError):  # noqa: N818 - an outcome to be told, named as such
    """An alias was moved by someone else in the meantime; ``now`` is their move."""

    def __init__(self, message: str, now: Event | None, **more: Any) -> None:
        super().__init__(message, **more)
        self.now = now


class Registry:
    """The registry in a folder (a path) or an object store (a URL, or a `Store`).

    The first `add` makes one; reading raises DataError where there is none.
    """

    def __init__(self, root: str | Path | Store) -> None:
        self.store = open_store(root) if isinstance(root, (str, Path)) else root

    # Versions ------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """The models that have a version."""
        self._check()
        return [n for n in self.store.names("") if NAME.fullmatch(n) and n != MARK
                and self._numbers(f"{n}/versions")]

    def add(
        self, name: str, members: Mapping[str, bytes], facts: Mapping[str, Any], *,
        added: Stamp | None = None,
    ) -> Version:
        """A bundle as a new version; the version that it is already, if it is one.

        Parameters
        ----------
        members : the content of the bundle's files, by name.
        facts : task, target, metrics, pipeline, data, run: as in `Version`.
        """
        model_name(name)
        held = {n: {"sha256": sha256(b), "size": len(b)} for n, b in members.items()}
        key = digest(held)
        self._make()
        for member, content in members.items():
            if not self.store.create(f"{name}/bundles/{key}/{member}", content):
                raise DataError(f"{self.store.url}/{name}/bundles/{key}/{member} is not what its "
                                "name says: it was changed or cut short",
                                hint="take it away by hand, then add the bundle again")
            crash_point(f"registry: {member}")
        known = self._numbers(f"{name}/versions")
        for number in known:
            there = self.version(name, number)
            if there.digest == key:
                return there
        number, added = known[-1] + 1 if known else 1, added or stamp()
        while True:
            mine = Version(name=name, version=number, digest=key, members=held, added=added,
                           **facts)
            if self.store.create(_numbered(f"{name}/versions", number), encoded(mine)):
                return mine
            there = self.version(name, number)  # somebody else's, made in the meantime
            if there.digest == key:
                return there
            number += 1

    def version(self, name: str, number: int) -> Version:
        """A version's record. DataError where there is no such version."""
        key = _numbered(f"{model_name(name)}/versions", number)
        content = self.store.read(key, CAP)
        if content is None:
            self._check()
            raise self._no_version(name, number)
        where = f"{self.store.url}/{key}"
        found = Version.from_json(content, where)
        if (found.name, found.version) != (name, number) or set(found.members) != set(
                CAPS) or digest(found.members) != found.digest:
            raise DataError(f"{where} does not agree with itself: it was changed")
        return found

    def versions(self, name: str) -> list[Version]:
        """All versions of a model, oldest first."""
        numbers = self._numbers(f"{model_name(name)}/versions")
        self._check()
        found = [self.version(name, n) for n in numbers]
        if not found:
            raise self._no_model(name)
        return found

    def member(self, version: Version, member: str) -> bytes:
        """The content of a file of a version's bundle. DataError where it was changed."""
        key = f"{version.name}/bundles/{version.digest}/{member}"
        content = self.store.read(key, CAPS[member])
        if content is None:
            raise DataError(f"{self.store.url}/{key} is missing")
        held = version.members[member]
        if len(content) != held["size"] or sha256(content) != held["sha256"]:
            raise DataError(
                f"{self.store.url}/{key} was changed after version {version.version} was added "
                f"(its SHA-256 is {sha256(content)[:12]}...)",
                hint="add the bundle again from where it was made, and promote that version")
        return content

    # Aliases -------------------------------------------------------------------------------

    def aliases(self, name: str) -> dict[str, int]:
        """Which version each alias of a model points at."""
        known = self._aliases(name)
        self._check()
        found = {a: self.alias(name, a) for a in known}
        return {a: e.version for a, e in found.items() if e is not None}

    def alias(self, name: str, alias: str) -> Event | None:
        """The last move of an alias, which says what it points at; None for a new one."""
        numbers = self._numbers(f"{model_name(name)}/aliases/{alias_name(alias)}")
        return self._event(name, alias, numbers[-1]) if numbers else None

    def history(self, name: str, alias: str | None = None) -> list[Event]:
        """All moves of an alias, or of all of a model's, in the order in which they were made.

        DataError where one is missing, or is not what it was when the next was made.
        """
        aliases = [alias] if alias else self._aliases(name)
        self._check()
        # Each alias's moves keep their order, also where the clocks of their movers disagree.
        return list(heapq.merge(*(self._moves(name, a) for a in aliases),
                                key=lambda e: e.moved.when))

    def move(
        self, name: str, alias: str, version: int, *, seen: Event | None,
        action: str = "promote", moved: Stamp | None = None,
        gates: Mapping[str, Any] | None = None, forced: bool = False,
    ) -> Event:
        """Point an alias at a version, if it has not been moved since ``seen``.

        ``seen`` is what `alias` gave. Raises Conflict, with what is there now, where somebody else
        was quicker; DataError where there is no such version.
        """
        self.version(name, version)
        number = 1 if seen is None else seen.number + 1
        event = Event(
            name, alias_name(alias), number, None if seen is None else seen.version, version,
            action, moved or stamp(), gates, forced,
            None if seen is None else seen.sha256,
        )
        content = encoded(event)
        if not self.store.create(_numbered(f"{name}/aliases/{alias}", number), content):
            now = self.alias(name, alias)
            assert now is not None
            raise Conflict(
                f"{alias!r} of {name!r} was moved to version {now.version} by {now.moved.who} at "
                f"{now.moved.when} while this was under way: nothing was changed", now,
                hint=f"look at version {now.version}, then decide again")
        return replace(event, sha256=sha256(content))

    def rollback(
        self, name: str, alias: str, to: int | None = None, *, moved: Stamp | None = None
    ) -> Event:
        """Point an alias at what it was before its last move, or at a version that it once was.

        It is a move like any other: a rollback of a rollback brings back what was rolled back.
        Raises DataError where the alias has been at nothing else, Conflict as `move` does.
        """
        past = self.history(name, alias)
        if not past:
            raise self._no_alias(name, alias)
        seen = past[-1]
        been = {e.version for e in past}
        if to is not None and to not in been:
            raise DataError(f"{alias!r} of {name!r} has never been at version {to}",
                            hint=f"it has been at {_listed(been)}; promote moves it anywhere")
        target = seen.before if to is None else to
        if target is None:
            raise DataError(f"{alias!r} of {name!r} has been at version {seen.version} alone: "
                            "there is nothing to go back to", hint="promote another version")
        return self.move(name, alias, target, seen=seen, action="rollback", moved=moved)

    def number_of(self, name: str, at: str) -> int:
        """The version that an alias or a version's number stands for."""
        if is_version(at):
            return self.version(name, int(at)).version
        event = self.alias(name, at)
        if event is None:
            self._check()
            raise self._no_alias(name, at)
        return event.version

    # Below ---------------------------------------------------------------------------------

    def _moves(self, name: str, alias: str) -> Iterator[Event]:
        before: Event | None = None
        for number in self._numbers(f"{name}/aliases/{alias_name(alias)}"):
            event = self._event(name, alias, number)
            expected = (1, None, None) if before is None else (
                before.number + 1, before.version, before.sha256)
            if (event.number, event.before, event.after) != expected:
                raise DataError(f"{self.store.url}/{name}/aliases/{alias}: move {number} does not "
                                "follow from the one before it: the history was changed")
            yield event
            before = event

    def _event(self, name: str, alias: str, number: int) -> Event:
        key = _numbered(f"{name}/aliases/{alias}", number)
        content, where = self.store.read(key, CAP), f"{self.store.url}/{key}"
        if content is None:
            raise DataError(f"{where} is missing")
        event = Event.from_json(content, where)
        if (event.name, event.alias, event.number) != (name, alias, number):
            raise DataError(f"{where} is the record of another move")
        return event

    def _aliases(self, name: str) -> list[str]:
        """The aliases there are; what a file browser left beside them is none."""
        return [a for a in self.store.names(f"{model_name(name)}/aliases") if ALIAS.fullmatch(a)]

    def _numbers(self, key: str) -> list[int]:
        found = [n.removesuffix(".json") for n in self.store.names(key)]
        return [int(n) for n in found if len(n) == 8 and n.isdecimal()]

    def _make(self) -> None:
        if self.store.read(MARK, CAP) is None:
            self.store.create(MARK, json.dumps({"format": FORMAT}).encode())
        self._check()

    def _check(self) -> None:
        content = self.store.read(MARK, CAP)
        if content is None:
            raise DataError("there is no registry here", where=self.store.url,
                            hint=f"`gpupipe models add {self.store.url}/NAME RUN` makes one")
        try:
            found = json.loads(content)["format"]
        except (ValueError, KeyError, TypeError):
            raise DataError(f"{MARK} is malformed", where=self.store.url) from None
        if found != FORMAT:
            raise DataError(f"the registry is of format {found!r}, and this version reads {FORMAT}",
                            where=self.store.url, hint="install a newer gpupipe")

    def _no_model(self, name: str) -> DataError:
        known = self.names()
        near = did_you_mean(name, known)
        return DataError(f"there is no model {name!r}", where=self.store.url,
                         hint=f"did you mean {near!r}?" if near else
                         f"there are {_listed(known)}" if known else "it has no models yet")

    def _no_version(self, name: str, number: int) -> DataError:
        known = self._numbers(f"{name}/versions")
        if not known:
            return self._no_model(name)
        return DataError(f"{name!r} has no version {number}", where=self.store.url,
                         hint=f"it has {_listed(known)}")

    def _no_alias(self, name: str, alias: str) -> DataError:
        if not self._numbers(f"{name}/versions"):
            return self._no_model(name)
        known = self.aliases(name)
        near = did_you_mean(alias, list(known))
        return DataError(
            f"{name!r} has no alias {alias!r}", where=self.store.url,
            hint=f"did you mean {near!r}?" if near else f"it has {_listed(known)}" if known else
            f"`gpupipe models promote {self.store.url}/{name}@VERSION {alias}` makes one")


def _numbered(key: str, number: int) -> str:
    return f"{key}/{number:08}.json"


def _listed(values: Any) -> str:
    shown = [str(v) for v in sorted(values)]
    return ", ".join(shown if len(shown) <= 10 else [*shown[:3], "...", *shown[-5:]])
