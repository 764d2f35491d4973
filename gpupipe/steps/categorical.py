"""Steps on categories: one-hot, ordinal, count and hash.

What becomes of a category that training never saw, and of a missing one, is written at each
step. Levels are ranked by count, then by value, so a vocabulary has one order everywhere.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from gpupipe.stats.state import Statistic
from gpupipe.stats.tables import Vocabulary
from gpupipe.steps.base import (
    CATEGORICAL,
    NUMERIC,
    Evidence,
    Feature,
    Params,
    Step,
    Target,
    known_vocabulary,
    register,
)

CATEGORIES = tuple(dict.fromkeys((*CATEGORICAL, *NUMERIC)))


class VocabularyStep(Step):
    """A step that learns which levels there are, and how many rows have each."""

    accepts = CATEGORIES
    columns: str | tuple[str, ...] = "categorical"

    @property
    def looks(self) -> int:
        return 1

    def needs(self, target: Target, evidence: Evidence) -> tuple[Statistic, ...]:
        return (Vocabulary(),)


@register("one_hot")
class OneHot(VocabularyStep):
    """A 0/1 column for each of the ``max_levels`` most frequent levels.

    Levels rarer than ``min_frequency`` rows, or past ``max_levels``, share the column
    ``<name>_(other)``; so does a level that training never saw, if there is such a column,
    and else all columns are 0. Missing values have the column ``<name>_(missing)`` if
    training saw one, and else all columns are 0.
    """

    max_levels: Annotated[int, Field(ge=1, le=10_000)] = 100
    min_frequency: Annotated[int, Field(ge=1)] = 1

    def outputs(self, feature: Feature, target: Target) -> tuple[Feature, ...]:
        return (Feature(feature.name, "block"),)

    def finalize(self, target: Target, evidence: Evidence) -> Params:
        state = known_vocabulary(evidence, self.name)
        ranked = state.ranked()
        frequent = ranked.counts[0] >= self.min_frequency
        keep = min(int(frequent.sum()), self.max_levels)
        levels = ranked.levels.slice(0, keep)
        names = [_text(v) for v in levels.to_pylist()]
        other = keep < len(ranked.levels)
        missing = state.missing > 0
        extra = ["(other)"] * other + ["(missing)"] * missing
        names = [repr(n) if n in extra else n for n in names] + extra
        return {"levels": levels, "names": names, "other": other, "missing": missing}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@register("ordinal")
class Ordinal(VocabularyStep):
    """The level's rank by frequency, 0 for the most frequent: what a tree can split natively.

    Levels rarer than ``min_frequency``, or past ``max_levels``, share one last code. A
    missing value, and a level that training never saw, become missing.
    """

    max_levels: Annotated[int, Field(ge=1)] = 1_000
    min_frequency: Annotated[int, Field(ge=1)] = 1

    def outputs(self, feature: Feature, target: Target) -> tuple[Feature, ...]:
        return (Feature(feature.name, "int64", categorical=True),)

    def finalize(self, target: Target, evidence: Evidence) -> Params:
        ranked = known_vocabulary(evidence, self.name).ranked()
        frequent = int((ranked.counts[0] >= self.min_frequency).sum())
        return {"levels": ranked.levels, "keep": min(frequent, self.max_levels)}


@register("count")
class Count(VocabularyStep):
    """How many training rows have the value; with ``normalize`` their share of all rows.

    Missing is a value like any other. A level that training never saw counts 0.
    """

    normalize: bool = False

    def outputs(self, feature: Feature, target: Target) -> tuple[Feature, ...]:
        return (Feature(feature.name, "float64"),)

    def finalize(self, target: Target, evidence: Evidence) -> Params:
        state = known_vocabulary(evidence, self.name)
        ranked = state.ranked()
        counts = np.append(ranked.counts[0], [0, state.missing]).astype(np.float64)
        total = counts.sum()
        return {
            "levels": ranked.levels,
            "values": counts / total if self.normalize and total else counts,
        }


@register("hash")
class Hash(Step):
    """The value's hash, modulo ``buckets``: for vocabularies without end. Learns nothing.

    A missing value stays missing; a level that training never saw hashes like any other.
    """

    accepts = CATEGORIES
    columns: str | tuple[str, ...] = "categorical"
    buckets: Annotated[int, Field(ge=2, le=2**24)] = 1_024

    def outputs(self, feature: Feature, target: Target) -> tuple[Feature, ...]:
        return (Feature(feature.name, "int64", categorical=True),)


def without_null(levels: pa.Array) -> tuple[pa.Array, int]:
    """Canonical levels without the null one, and the null one's position (-1: none)."""
    if levels.null_count == 0:
        return levels, -1
    return levels.filter(pc.is_valid(levels)), len(levels) - 1
