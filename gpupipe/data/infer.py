"""The type of a text column, from all its values: counts only, so no order can change it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from gpupipe.data import timestamps
from gpupipe.data.schema import DType

Kind = Literal["text", "string", "number", "bool", "mixed"]
"""What the source says a column's values are: CSV says only ``text``; JSON says the rest."""

NUMBER = r"^[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|(?i:inf|infinity|nan))$"
INTEGER = r"^[+-]?\d+$"
PADDED = r"^[+-]?0\d+$"
BOOLS = pa.array(["true", "false", "True", "False", "TRUE", "FALSE"])
_EXACT = 2**53


@dataclass(frozen=True)
class Verdict:
    """A column's type, the form of its timestamps, and what the user should know."""

    dtype: DType
    form: str | None = None
    failing: int = 0
    note: str | None = None


@dataclass
class Tally:
    """How many of a column's values can be read as what. Counts add up in any order.

    ``limit`` values that are no numbers are allowed in a numeric column; once more are seen
    (and the source is CSV text), only text is possible and looking goes on no longer.
    """

    kind: Kind
    limit: int
    values: int = 0
    bools: int = 0
    integers: int = 0
    huge: int = 0
    padded: int = 0
    floats: int = 0
    inexact: int = 0
    text: int = 0
    stamps: Counter[tuple[str, bool]] = field(default_factory=Counter)
    example: str = ""

    @property
    def settled(self) -> bool:
        """Whether the column is text whatever else comes."""
        return self.text > self.limit or self.kind == "mixed"

    def add(self, column: pa.Array, missing: pa.Array) -> None:
        """Count the values of one block: a string array, plain or dictionary-encoded."""
        counts: pa.Array | None = None
        if pa.types.is_dictionary(column.type):
            counted = pc.value_counts(column.indices)
            values = column.dictionary.take(counted.field("values"))
            counts = counted.field("counts")
        else:
            values = column
        absent = pc.is_in(values, missing)
        if values.null_count:
            absent = pc.or_(absent, pc.is_null(values))
        if pc.any(absent).as_py():
            values = values.filter(pc.invert(absent))
            counts = None if counts is None else counts.filter(pc.invert(absent))
        self.values += _weight(values, counts)
        if self.settled or not len(values):
            return
        if self.kind in ("text", "number") and self._all_numbers(values, counts):
            return
        if self.kind in ("text", "string"):
            plain = timestamps.iso_fast(values)
            if plain is not None:
                self.stamps["iso", plain[1]] += _weight(values, counts)
                return
        if counts is None:
            counted = pc.value_counts(values)
            values, counts = counted.field("values"), counted.field("counts")
        self._one_by_one(values, counts)

    def _all_numbers(self, values: pa.Array, counts: pa.Array | None) -> bool:
        """The common case, without regular expressions: every value of the block is a number."""
        integers = timestamps.cast_all(values, pa.int64())
        # Arrow reads 007 and 0x1F too: digits in, the same digits out.
        if integers is not None and pc.all(
                pc.equal(integers.cast(pa.string()), values)).as_py():
            self.integers += _weight(values, counts)
            self._count_inexact(integers, counts)
            return True
        if timestamps.cast_all(values, pa.float64()) is None:
            return False
        self._numbers(values, counts)
        return True

    def _numbers(self, values: pa.Array, counts: pa.Array | None) -> None:
        """Tell integers, padded integers, huge integers and floats apart."""
        point = pc.match_substring(values, ".")  # much faster than the regular expression
        self.floats += _weight(values, counts, point)
        values = values.filter(pc.invert(point))
        counts = None if counts is None else counts.filter(pc.invert(point))
        whole = pc.match_substring_regex(values, INTEGER)
        self.floats += _weight(values, counts, pc.invert(whole))
        integers = values.filter(whole)
        counts = None if counts is None else counts.filter(whole)
        padded = pc.match_substring_regex(integers, PADDED)
        self.padded += _weight(integers, counts, padded)
        rest = integers.filter(pc.invert(padded))
        counts = None if counts is None else counts.filter(pc.invert(padded))
        fits = fits_int64(rest)
        self.huge += _weight(rest, counts, pc.invert(fits))
        self.integers += _weight(rest, counts, fits)
        exact = unsigned_plus(rest.filter(fits)).cast(pa.int64())
        self._count_inexact(exact, None if counts is None else counts.filter(fits))

    def _count_inexact(self, integers: pa.Array, counts: pa.Array | None) -> None:
        big = pc.or_(pc.greater(integers, _EXACT), pc.less(integers, -_EXACT))
        self.inexact += _weight(integers, counts, big)

    def _one_by_one(self, values: pa.Array, counts: pa.Array) -> None:
        """Count distinct values kind by kind; what nothing else can be is text."""
        taken = pc.is_in(values, pa.array([], pa.string()))
        if self.kind in ("text", "bool"):
            bools = pc.is_in(values, BOOLS)
            self.bools += _weight(values, counts, bools)
            taken = pc.or_(taken, bools)
        if self.kind in ("text", "number"):
            numbers = pc.match_substring_regex(values, NUMBER)
            self._numbers(values.filter(numbers), counts.filter(numbers))
            taken = pc.or_(taken, numbers)
        if self.kind in ("text", "string"):
            taken = pc.or_(taken, self._timestamps(values, counts, taken))
        rest = pc.invert(taken)
        self.text += _weight(values, counts, rest)
        if not self.example and pc.any(rest).as_py():
            self.example = values.filter(rest)[0].as_py()

    def _timestamps(self, values: pa.Array, counts: pa.Array, taken: pa.Array) -> pa.Array:
        found = pc.is_in(values, pa.array([], pa.string()))
        # No form is without a digit and a separator: most words end here.
        likely = pc.and_(pc.invert(taken), pc.match_substring_regex(values, r"\d[-/. T]|[A-Za-z] "))
        if not pc.any(likely).as_py():
            return found
        for form in timestamps.FORMS:
            stamps, aware = timestamps.parse(values, form)
            valid = pc.and_(pc.is_valid(stamps), likely)
            for zone in (False, True):
                these = pc.and_(valid, pc.equal(pc.fill_null(aware, False), zone))
                if number := _weight(values, counts, these):
                    self.stamps[form, zone] += number
            found = pc.or_(found, valid)
        return found

    def verdict(self, name: str, limit: int) -> Verdict:
        """The narrowest type that all values are of; ``limit`` failing values are allowed."""
        if self.values == 0:
            return Verdict("float64", note=f"column {name!r} has no values at all")
        if self.settled:
            return Verdict("string", note=self._nearly(name))
        if self.bools == self.values:
            return Verdict("bool")
        numbers = self.integers + self.huge + self.padded + self.floats
        failing = self.values - numbers
        if numbers and failing <= limit:
            return self._number(name, failing)
        if not numbers and not self.bools:
            return self._stamp(name)
        return Verdict("string", note=self._nearly(name))

    def _number(self, name: str, failing: int) -> Verdict:
        if self.padded:
            return Verdict("string", note=f"column {name!r} has numbers with leading zeros: it "
                           "stays text")
        if self.floats:
            return Verdict("float64", failing=failing)
        if self.huge:
            return Verdict("string", note=f"column {name!r} has integers beyond 64 bits: it stays "
                           "text")
        note = None
        if self.inexact:
            note = (f"column {name!r} has integers beyond 2^53: they are kept exactly, a model "
                    "sees them rounded")
        return Verdict("int64", failing=failing, note=note)

    def _stamp(self, name: str) -> Verdict:
        whole = [key for key, count in self.stamps.items() if count == self.values]
        forms = {form for form, _ in whole}
        if len(forms) == 1:
            return Verdict("timestamp", form=forms.pop())
        if len(forms) > 1:
            return Verdict("string", note=f"column {name!r} could be day/month or month/day: it "
                           "stays text; a date above 12 would tell")
        for form, _ in self.stamps:
            if self.stamps[form, False] + self.stamps[form, True] == self.values:
                return Verdict("string", note=f"column {name!r} has times with and without a time "
                               "zone: it stays text")
        return Verdict("string")

    def _nearly(self, name: str) -> str | None:
        numbers = self.integers + self.huge + self.padded + self.floats
        if self.text and numbers > 0.9 * (numbers + self.text):
            return (f"column {name!r} is text because some of its values are not numbers, "
                    f"{self.example!r} for one")
        return None


def _weight(values: pa.Array, counts: pa.Array | None, mask: pa.Array | None = None) -> int:
    """How many values there are (in ``mask``), a distinct value counted as often as it came."""
    if counts is None:
        return len(values) if mask is None else pc.sum(mask).as_py() or 0
    return pc.sum(counts if mask is None else counts.filter(mask)).as_py() or 0


def unsigned_plus(values: pa.Array) -> pa.Array:
    """Arrow reads no ``+5``."""
    plus = pc.starts_with(values, "+")
    if pc.any(plus).as_py():
        return pc.if_else(plus, pc.utf8_slice_codeunits(values, 1), values)
    return values


def fits_int64(values: pa.Array) -> pa.Array:
    """Which of some unpadded decimal integers are in [-2^63, 2^63)."""
    digits = pc.replace_substring_regex(values, r"^[+-]", "")
    size = pc.binary_length(digits)
    bound = pc.if_else(pc.starts_with(values, "-"), "9223372036854775808", "9223372036854775807")
    return pc.or_(pc.less(size, 19), pc.and_(pc.equal(size, 19), pc.less_equal(digits, bound)))
