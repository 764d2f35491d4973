"""Hashes are the same in every release, and behave like random numbers."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from gpupipe.engine.hashing import combine64, hash_numbers, hash_strings, mix64

# Splits of every user depend on these: a change of one of them is a new major release.
NUMBERS = {
    0.0: 0xE220A8397B1DCDAF,
    1.0: 0x88D7C35BBBF3EDED,
    -1.0: 0xA9D88AC0153E159A,
    0.1: 0xF823E4ED2FB12A7D,
    2.0**53: 0xB1521CCB07882C6E,
    float("inf"): 0x249E5410C2F97D99,
    float("nan"): 0xC72971D82E15BB46,
}
TEXT = {
    "": 0xE220A8397B1DCDAF,
    "a": 0x50BB1DCFE6EC0D30,
    "abcdefgh": 0x3EE93E100853B102,
    "abcdefghi": 0x812959EF5CA726FF,
    "漢字": 0xC525F4250A551C4D,
    "a\x00": 0xAD84CE05279FDE06,
}


def test_splitmix_gives_its_published_sequence():
    """The first outputs of SplitMix64 for seed 1234567, as in its reference implementation."""
    seeds = np.array([1234567 + i * 0x9E3779B97F4A7C15 & (1 << 64) - 1 for i in range(3)],
                     np.uint64)
    assert mix64(seeds, np).tolist() == [
        6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize(("value", "expected"), NUMBERS.items())
def test_a_number_has_the_hash_that_it_always_had(value, expected):
    assert hex(hash_numbers(np.array([value]), np)[0]) == hex(expected)


@pytest.mark.parametrize(("value", "expected"), TEXT.items())
def test_a_text_has_the_hash_that_it_always_had(value, expected):
    assert hex(hash_strings(pa.array([value]))[0]) == hex(expected)


def test_a_large_integer_and_a_pair_have_the_hashes_that_they_always_had():
    assert hex(hash_numbers(np.array([2**53 + 1]), np)[0]) == "0x14c430eca99f5b5b"
    one, two = np.array([1], np.uint64), np.array([2], np.uint64)
    assert hex(combine64(one, two, np)[0]) == "0x910a2dec89025cc1"


def test_a_million_numbers_have_a_million_hashes():
    n = 1_000_000
    for values in (np.arange(n), np.arange(n) / 7, np.arange(n) + 2**53):
        assert len(np.unique(hash_numbers(values, np))) == n


def test_a_million_texts_have_a_million_hashes():
    texts = [f"user-{i}" for i in range(900_000)] + ["x" * i for i in range(300)] + [
        "\x00" * i for i in range(1, 300)] + [f"{i}" + "y" * 60 for i in range(99_401)]
    assert len(np.unique(hash_strings(pa.array(texts)))) == len(texts) == 1_000_000


def flipped(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Share of output bits that differ, by bit."""
    difference = (before ^ after)[:, None] >> np.arange(64, dtype=np.uint64) & np.uint64(1)
    return difference.mean(axis=0)


@pytest.mark.parametrize("bit", range(0, 64, 3))
def test_each_input_bit_moves_every_output_bit_half_of_the_time(bit):
    x = np.random.default_rng(bit).integers(0, 2**63, 20_000).astype(np.uint64)
    after = x ^ np.uint64(1 << bit)
    # 20,000 throws: half, with a standard deviation of .0035.
    assert (abs(flipped(mix64(x, np), mix64(after, np)) - 0.5) < 0.02).all()


@pytest.mark.parametrize("position", [0, 5, 8, 20])
def test_each_character_moves_every_output_bit_half_of_the_time(position):
    words = [f"{i:021d}" for i in range(20_000)]
    changed = [w[:position] + "x" + w[position + 1 :] for w in words]
    before, after = hash_strings(pa.array(words)), hash_strings(pa.array(changed))
    assert (abs(flipped(before, after) - 0.5) < 0.02).all()


def test_a_number_hashes_by_value():
    ints = np.array([0, 1, -5, 2**31, -(2**53), 2**53])
    np.testing.assert_array_equal(hash_numbers(ints, np), hash_numbers(ints.astype(float), np))
    small = np.array([0, 1], np.int32)
    for kind in (np.int64, np.float32, np.float64, np.bool_):
        np.testing.assert_array_equal(hash_numbers(small.astype(kind), np),
                                      hash_numbers(small, np))
    assert hash_numbers(np.array([-0.0]), np) == hash_numbers(np.array([0.0]), np)


def test_neighbours_past_what_a_float_can_tell_apart_differ():
    big = np.array([2**53 + 1, 2**53 + 2, 2**63 - 1, 2**63 - 2, -(2**63)])
    assert len(set(hash_numbers(big, np).tolist())) == 5


def test_slices_and_wide_offsets_hash_as_copies_do():
    words = pa.array(["skip", "a", "bc", "a longer text than eight", "", "z"])
    expected = [hash_strings(pa.array([w]))[0] for w in words.to_pylist()]
    np.testing.assert_array_equal(hash_strings(words.slice(1, 4)), expected[1:5])
    np.testing.assert_array_equal(hash_strings(words.cast(pa.large_string())), expected)
    assert len(hash_strings(words.slice(0, 0))) == 0


def test_padding_with_zeros_makes_another_text():
    texts = ["a", "a\x00", "a\x00\x00", "\x00a", "", "\x00"]
    assert len(set(hash_strings(pa.array(texts)).tolist())) == len(texts)
