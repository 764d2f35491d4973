"""Assignment: a function of id and salt, uniform, independent, and stable under ramps."""

from __future__ import annotations

import uuid
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gpupipe.errors import ConfigError, DataError
from gpupipe.experiment.assign import BUCKETS, Layer, Split, assign, bucket, moves

HALVES = Split("new-ranker", {"control": 0.5, "treatment": 0.5})
IDS = {
    "counted": [str(i) for i in range(40_000)],
    "padded": [f"user-{i:08}" for i in range(0, 400_000, 10)],
    "uuids": [str(uuid.UUID(int=i * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128))
              for i in range(40_000)],
    "mails": [f"{a}.{b}@example.com" for a in range(200) for b in range(200)],
}


def test_the_arm_is_a_range_of_the_first_twenty_bits_of_sha256() -> None:
    first = int.from_bytes(sha256(b"arm/new-ranker\0user-17").digest()[:8], "big") >> 44
    assert bucket("user-17", "arm/new-ranker") == first < BUCKETS
    assert assign("user-17", HALVES).arm == ("control" if first < BUCKETS // 2 else "treatment")


def test_a_number_and_its_digits_are_one_unit() -> None:
    assert assign(17, HALVES) == assign("17", HALVES) == assign(np.int64(17), HALVES)


@pytest.mark.parametrize("kind", IDS)
def test_units_are_dealt_out_in_the_planned_shares(kind: str) -> None:
    split = Split("shares", {"a": 0.7, "b": 0.2, "c": 0.1})
    arms = [assign(unit, split).arm for unit in IDS[kind]]
    found = [arms.count(name) for name in split.arms]
    expected = [share * len(arms) for share in split.arms.values()]
    assert stats.chisquare(found, expected).pvalue > 0.001


@pytest.mark.parametrize("kind", IDS)
def test_buckets_are_uniform(kind: str) -> None:
    places = [bucket(unit, "arm/x") for unit in IDS[kind]]
    found = np.bincount(np.array(places) * 256 // BUCKETS, minlength=256)
    assert stats.chisquare(found).pvalue > 0.001


@pytest.mark.parametrize("kind", IDS)
def test_two_experiments_are_independent_and_so_are_exposure_and_arm(kind: str) -> None:
    def crossed(a: list[int], b: list[int]) -> float:
        table = np.zeros((16, 16))
        np.add.at(table, (np.array(a) * 16 // BUCKETS, np.array(b) * 16 // BUCKETS), 1)
        return float(stats.chi2_contingency(table).pvalue)

    of = {salt: [bucket(u, salt) for u in IDS[kind]] for salt in
          ("arm/first", "arm/second", "exposure/first", "layer/home")}
    assert crossed(of["arm/first"], of["arm/second"]) > 0.001
    assert crossed(of["arm/first"], of["exposure/first"]) > 0.001
    assert crossed(of["exposure/first"], of["layer/home"]) > 0.001


@given(st.floats(0, 1), st.floats(0, 1), st.text(min_size=1))
def test_a_unit_that_is_in_stays_in_its_arm_while_the_exposure_grows(
    a: float, b: float, unit: str
) -> None:
    low, high = (replace(HALVES, exposure=share) for share in sorted((a, b)))
    before, after = assign(unit, low), assign(unit, high)
    assert before.arm is None or before == after
    assert moves(low, high) == ()


def test_a_ramp_lets_in_the_share_that_it_says() -> None:
    ten = replace(HALVES, exposure=0.1)
    found = [assign(unit, ten).why for unit in IDS["padded"]]
    inside = found.count("assigned")
    assert stats.binomtest(inside, len(found), 0.1).pvalue > 0.001
    assert found.count("not ramped") == len(found) - inside
    assert all(assign(u, replace(HALVES, exposure=0)).arm is None for u in IDS["padded"][:99])


def test_a_challenger_that_grows_keeps_its_units_and_the_champions_move() -> None:
    small = Split("s", {"champion": 0.95, "challenger": 0.05})
    great = Split("s", {"champion": 0.8, "challenger": 0.2})
    assert moves(small, great) == ("champion",)
    for unit in IDS["counted"][:5_000]:
        if assign(unit, small).arm == "challenger":
            assert assign(unit, great).arm == "challenger"
    assert moves(small, small) == ()
    assert moves(replace(small, exposure=0.2), replace(small, exposure=0.1)) == (
        "champion", "challenger")
    with pytest.raises(ConfigError, match="dealt out anew"):
        moves(small, replace(small, salt="t"))


def test_experiments_of_one_layer_never_share_a_unit() -> None:
    left = replace(HALVES, salt="left", layer=Layer("home", 0, 0.5))
    right = replace(HALVES, salt="right", layer=Layer("home", 0.5, 1))
    for unit in IDS["mails"][:5_000]:
        whys = {assign(unit, left).why, assign(unit, right).why}
        assert whys == {"assigned", "other layer"}


def test_excluded_units_have_no_arm() -> None:
    assert assign(7, replace(HALVES, exclude=["7"])).why == "excluded"
    assert assign("7", replace(HALVES, exclude=[7])).arm is None


@pytest.mark.parametrize("unit", [None, "", 1.5, True, float("nan")])
def test_a_unit_without_an_id_is_refused(unit: object) -> None:
    with pytest.raises(DataError, match="id"):
        assign(unit, HALVES)  # type: ignore[arg-type]


@pytest.mark.parametrize(("arms", "exposure", "says"), [
    ({"a": 1.0}, 1, "two arms"), ({"a": 0.5, "b": 0.6}, 1, "sum to 1"),
    ({"a": 0.5, "b": -0.5}, 1, "between 0 and 1"), ({"a": 0.5, "b": 0.5}, 1.5, "exposure"),
    ({"a": 0.5, "b": float("nan")}, 1, "between 0 and 1"),
])
def test_a_split_that_cannot_be_is_refused(
    arms: dict[str, float], exposure: float, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        Split("s", arms, exposure)
    with pytest.raises(ConfigError, match="salt"):
        Split("", {"a": 0.5, "b": 0.5})
    with pytest.raises(ConfigError, match="lower to a higher"):
        Layer("home", 0.5, 0.5)
