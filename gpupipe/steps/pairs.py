"""Steps that look at two columns at a time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from gpupipe.errors import ConfigError
from gpupipe.steps.base import NUMERIC, ROLES, Combination, Feature, Step, register


def ratio_name(a: str, b: str) -> str:
    """What the ratio of two columns is called."""
    return f"{a}_per_{b}"


@register("ratio")
class Ratio(Step):
    """A column ``a_per_b`` for every two of the columns, ``a`` the earlier one; they stay.

    It is missing where ``b`` is 0, one of the two is, or a float32 does not hold the ratio. Trees
    cut one column at a time, so a ratio takes them many cuts: a price by size and weight, rooms
    to a household. Of k columns there are ``k (k - 1) / 2``: name those that are worth it.
    """

    accepts = NUMERIC
    columns: str | tuple[str, ...] = "numeric"

    def combined(self, features: Sequence[Feature]) -> Sequence[tuple[Combination, Feature]]:
        asked = [self.columns] if isinstance(self.columns, str) else self.columns
        if len(features) < 2 and not {*asked} & {*ROLES, *ROLES["all"]}:
            raise ConfigError(
                f"step 'ratio' takes two columns or more, and {', '.join(map(repr, asked))} "
                f"selects {features[0].name!r} alone", hint="name another column, or leave the "
                "step out")
        return [((a, b), Feature(ratio_name(a.name, b.name), "float64"))
                for a, b in combinations(features, 2)]
