"""Windows: stretches of time or of rows into which what is monitored is cut."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from gpupipe.config.units import microseconds_of
from gpupipe.engine.frames import Array
from gpupipe.errors import ConfigError

ORIGIN = 4 * 86_400_000_000
"""The first Monday after 1970 began, in microseconds: weeks begin on Mondays, days at midnight
in UTC."""
SHORTEST = 60_000_000


@dataclass(frozen=True)
class Windows:
    """Windows of ``size`` microseconds, or of ``size`` rows; of all rows where ``size`` is None."""

    size: int | None
    by: str = "time"

    @classmethod
    def parse(cls, text: str) -> Windows:
        """``1d``, ``12h``, ``10000rows`` or ``all``. ConfigError where it is none of these."""
        if text == "all":
            return cls(None, "rows")
        rows = re.fullmatch(r"\s*([\d_,]+)\s*rows?\s*", text)
        if rows:
            size = int(re.sub("[_,]", "", rows[1]) or 0)
            if size < 1:
                raise ConfigError(f"a window of {text!r} has no rows", hint="write 10000rows")
            return cls(size, "rows")
        try:
            size = microseconds_of(text)
        except ValueError as error:
            raise ConfigError(f"a window cannot be {text!r}: {error.args[0]}",
                              hint="write 1d, 12h, 30m, 10000rows, or all") from None
        if size < SHORTEST:
            raise ConfigError(f"a window of {text!r} is shorter than a minute",
                              hint="write 1m or more")
        return cls(size)

    @property
    def text(self) -> str:
        """As it is written: ``1d``, ``10000rows``, ``all``."""
        if self.size is None:
            return "all"
        if self.by == "rows":
            return f"{self.size}rows"
        for unit, length in (("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000),
                             ("s", 1_000_000)):
            if self.size % length == 0:
                return f"{self.size // length}{unit}"
        return f"{self.size}us"

    def of_times(self, times: Array) -> Array:
        """The window of each moment (int64 microseconds since 1970)."""
        assert self.size is not None
        return (times - ORIGIN) // self.size

    def of_rows(self, first: int, n: int) -> np.ndarray:
        """The windows of ``n`` rows of which the first has number ``first``."""
        if self.size is None:
            return np.zeros(n, np.int64)
        return np.arange(first, first + n, dtype=np.int64) // self.size

    def factor(self, finer: Windows) -> int:
        """How many ``finer`` windows make one of these. ConfigError where it is no whole number."""
        if finer.by == self.by and self.size is not None and finer.size is not None and (
                self.size % finer.size == 0):
            return self.size // finer.size
        if self == finer:
            return 1
        raise ConfigError(
            f"windows of {self.text} cannot be cut from the history's windows of {finer.text}",
            hint=f"take a multiple of {finer.text}, or another history folder")

    def bounds(self, number: int) -> tuple[str, str]:
        """Where a window begins and ends, as text: moments in UTC, or row numbers."""
        if self.size is None:
            return "all", "all"
        if self.by == "rows":
            return str(number * self.size), str((number + 1) * self.size)
        a, b = (ORIGIN + (number + i) * self.size for i in (0, 1))
        return tuple(str(np.datetime64(v, "us"))[:19] + "Z" for v in (a, b))  # type: ignore[return-value]
