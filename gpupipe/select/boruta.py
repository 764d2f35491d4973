"""Boruta: what contributes more than the best of the shuffled copies of all features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import comb
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from gpupipe.checkpoints import NOWHERE
from gpupipe.engine.arrays import namespace
from gpupipe.models import model_of
from gpupipe.models.base import Matrix, OneOf, Range, Space
from gpupipe.select.base import Method, Unit, Verdict, register
from gpupipe.select.evidence import Evidence, generator

SHADOWS = 5
"""Shadows at least: copies of few features are made more than once, as Boruta does."""
EXPLAINED = 2_000
"""Judging rows that are explained, at most: the time goes with their number."""


@register("boruta")
class Boruta(Method):
    """Keep every feature that contributes more than chance does.

    In each round every feature that is not rejected gets a shadow, itself with its rows
    shuffled, and trees are grown on both. A feature that contributes more than the best shadow
    has a hit. Hits of a useless feature are those of a coin at most; a two-sided binomial test
    with Bonferroni's correction confirms or rejects (M. B. Kursa and W. R. Rudnicki, "Feature
    Selection with the Boruta Package", J. Stat. Software 36(11), 2010). Contributions are SHAP
    values by XGBoost on training rows that the round's trees have not seen, other ones in each
    round, rather than the loss of accuracy in a forest.
    """

    space: ClassVar[Space] = {
        "percentile": Range(80, 100), "alpha": Range(1e-3, 0.1, log=True),
        "tentative": OneOf(("majority", "keep", "drop")),
    }
    rounds: Annotated[int, Field(ge=5)] = 20
    """Rounds at most."""
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """The chance, over all features, of a false decision in a round."""
    percentile: Annotated[float, Field(gt=0, le=100)] = 100
    """Which percentile of the shadows' contributions is to be beaten; 100: the best one's."""
    tentative: Literal["majority", "keep", "drop"] = "majority"
    """What becomes of a feature that is neither confirmed nor rejected in the end: majority keeps
    it where it had hits in more than half of the rounds."""
    trees: Annotated[int, Field(ge=1)] = 50
    """Trees of a round."""
    max_depth: Annotated[int, Field(ge=1)] = 4
    """Their depth."""

    def choose(self, evidence: Evidence) -> Verdict:
        units = evidence.units
        tally = _Tally(len(units), self.alpha)
        for turn in range(self.rounds):
            if not tally.open.any():
                break
            left = [u for u, out in zip(units, tally.rejected, strict=True) if not out]
            own, shadows = self._contributions(evidence, left, turn)
            tally.add(own > np.percentile(shadows, self.percentile))
        share = tally.hits / max(tally.rounds, 1)
        least = {"keep": -1.0, "majority": 0.5, "drop": 1.0}[self.tentative]
        keep = tally.confirmed | (tally.open & (share > least))
        note = (f"{tally.confirmed.sum()} confirmed, {tally.rejected.sum()} rejected and "
                f"{tally.open.sum()} left open after {tally.rounds} rounds")
        return Verdict(keep, share, None, note)

    def _contributions(
        self, evidence: Evidence, units: Sequence[Unit], turn: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The mean size of what each unit, and each shadow, adds to the margin."""
        learn, judge = evidence.parts(turn)
        judge = judge[:: max(1, -(-len(judge) // EXPLAINED))]
        copies = max(1, -(-SHADOWS // len(units)))
        train = with_shadows(evidence.rows(learn, units), units, copies, evidence, 0, turn)
        rows = with_shadows(evidence.rows(judge, units), units, copies, evidence, 1, turn)
        how = replace(evidence.how, checkpoints=NOWHERE, rounds=None, processes=1, spill=None,
                      seed=int(generator(evidence.how, 5, turn).integers(2**31)))
        model: Any = model_of("xgboost", self._params()).fit(train, None, evidence.target, how)
        found = model.contributions(next(iter(rows.chunks))).values
        found = found.reshape(len(judge), found.shape[1], -1)  # rows, columns, classes
        weight = evidence.weight[judge]
        size, at = [], 0
        for unit in [*units] * (1 + copies):
            part = np.abs(found[:, at : at + len(unit.columns)].sum(axis=1)).sum(axis=1)
            size.append(float((part * weight).sum() / weight.sum()))
            at += len(unit.columns)
        return np.array(size[: len(units)]), np.array(size[len(units) :])

    def _params(self) -> dict[str, Any]:
        # Cautious trees: those that fit the noise give features and shadows alike great
        # contributions, and what helps a little is lost among them.
        return {"n_estimators": self.trees, "max_depth": self.max_depth, "learning_rate": 0.1,
                "min_child_weight": 5.0, "subsample": 0.7, "colsample_bytree": 1.0,
                "colsample_bynode": 0.5}


def with_shadows(
    rows: Matrix, units: Sequence[Unit], copies: int, evidence: Evidence, *turn: int
) -> Matrix:
    """The rows with shuffled copies of all their features beside them."""
    x = next(iter(rows.chunks))
    xp, pieces = namespace(x), [x]
    for copy in range(copies):
        at = 0
        for u, unit in enumerate(units):
            order = generator(evidence.how, 4, *turn, copy, u).permutation(len(x))
            pieces.append(x[xp.asarray(order), at : at + len(unit.columns)])
            at += len(unit.columns)
    names = [*rows.names, *(f"shadow {c} of {n}" for c in range(copies) for n in rows.names)]
    return replace(rows, chunks=(xp.concatenate(pieces, axis=1),), names=tuple(names),
                   categorical=rows.categorical * (1 + copies), origins=())


@dataclass
class _Tally:
    """Hits so far, and what they decide."""

    count: int
    alpha: float
    rounds: int = 0
    hits: np.ndarray = field(init=False)
    confirmed: np.ndarray = field(init=False)
    rejected: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.hits = np.zeros(self.count, int)
        self.confirmed = np.zeros(self.count, bool)
        self.rejected = np.zeros(self.count, bool)

    @property
    def open(self) -> np.ndarray:
        """Which are neither confirmed nor rejected."""
        return ~(self.confirmed | self.rejected)

    def add(self, hit: np.ndarray) -> None:
        """Count a round: ``hit`` by feature that was not rejected."""
        self.rounds += 1
        self.hits[~self.rejected] += hit
        still = self.open
        above = np.array([tail(self.rounds, h) for h in self.hits])
        below = np.array([tail(self.rounds, self.rounds - h) for h in self.hits])
        self.confirmed |= still & (above * self.count < self.alpha)
        self.rejected |= still & (below * self.count < self.alpha)


def tail(n: int, hits: int) -> float:
    """P(at least so many heads in n throws of a coin)."""
    return float(sum(comb(n, k) for k in range(int(hits), n + 1)) / 2**n)
