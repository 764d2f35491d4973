"""Moving an alias to a version, if the gates let it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpupipe.bundle.scoring import load
from gpupipe.errors import DataError
from gpupipe.registry.bundles import fetch
from gpupipe.registry.gates import Gates, Verdict, judged
from gpupipe.registry.records import Event, Stamp
from gpupipe.registry.registry import Conflict, Registry


@dataclass(frozen=True)
class Promotion:
    """What came of it: the alias's move (None: it stayed where it was) and the gates' verdict."""

    alias: str
    version: int
    move: Event | None
    verdict: Verdict | None
    already: bool = False

    @property
    def done(self) -> bool:
        return self.already or self.move is not None

    def to_json(self) -> dict[str, Any]:
        return {
            "done": self.done, "already": self.already, "alias": self.alias,
            "version": self.version, "move": self.move and self.move.to_json(),
            "gates": self.verdict and self.verdict.to_json(),
        }


def promote(
    registry: Registry, name: str, version: int, alias: str = "champion", *,
    gates: Gates | None = None, data: object | None = None, against: str | None = None,
    expect: int | None = None, force: bool = False, moved: Stamp | None = None,
    progress: Any = None,
) -> Promotion:
    """Point an alias at a version, where the gates let it and nobody else moved it meanwhile.

    Parameters
    ----------
    gates : what the version has to pass, on ``data``; None: nothing is asked.
    against : the version or alias that it is held against (default: where ``alias`` points now).
    expect : the version that the alias has to point at now.
    force : move it although a gate does not pass; the history says so.

    Raises Conflict where the alias is not at what is expected, or was moved while the gates were
    asked; nothing is changed then.
    """
    challenger = registry.version(name, version)
    seen = registry.alias(name, alias)
    there = None if seen is None else seen.version
    if expect is not None and there != expect:
        raise Conflict(f"{alias!r} of {name!r} is at "
                       f"{'no version' if there is None else f'version {there}'}, not at {expect}: "
                       "nothing was changed", seen, hint="look at what is there, then decide again")
    if there == version:
        return Promotion(alias, version, None, None, already=True)
    verdict = None
    if gates is not None:
        held = there if against is None else registry.number_of(name, against)
        if held == version:
            raise DataError(f"version {version} would be held against itself",
                            hint="--against names another version or alias")
        champion = None if held is None else load(fetch(registry, registry.version(name, held)))
        verdict = judged(gates, load(fetch(registry, challenger)), champion, data,
                         numbers=(version, held), progress=progress)
        if not verdict.passed and not force:
            return Promotion(alias, version, None, verdict)
    told = None if verdict is None else verdict.to_json()
    move = registry.move(name, alias, version, seen=seen, moved=moved, gates=told,
                         forced=verdict is not None and not verdict.passed)
    return Promotion(alias, version, move, verdict)
