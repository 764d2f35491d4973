"""What is installed, against what gpupipe asks for: read from metadata, nothing is imported."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass

ALIASES = {"xgboost": ("xgboost-cpu",)}
"""The same package, built without CUDA."""


@dataclass(frozen=True)
class Requirement:
    """A package and the versions of it that will do, such as ``>=3.0,<3.1``."""

    name: str
    bounds: str

    @property
    def pip(self) -> str:
        """The command that installs it."""
        return f"pip install '{self.name}{self.bounds}'"

    @property
    def version(self) -> str | None:
        """The installed version; None where it is not installed.

        RAPIDS from conda carries no CUDA suffix: ``cudf`` is as good as ``cudf-cu13``.
        """
        plain = self.name.partition("[")[0]
        stem = re.sub(r"-cu(da)?\d\dx?$", "", plain)
        return installed(plain, stem, *ALIASES.get(plain, ()))


def requirements(extra: str | None = None) -> list[Requirement]:
    """What gpupipe itself asks for, or an extra of it. PackageNotFoundError without gpupipe."""
    found = []
    for text in importlib.metadata.requires("gpupipe") or []:
        needed, _, marker = text.partition(";")
        named = re.search(r"""extra == ['"]([\w-]+)['"]""", marker)
        if (named[1] if named else None) != extra:
            continue
        match = re.match(r"([\w.-]+(?:\[[\w,.-]*\])?)\s*(.*)", needed.strip())
        assert match is not None
        found.append(Requirement(match[1], match[2].strip("() ")))
    return found


def installed(*names: str) -> str | None:
    """The version of the first of these distributions that is installed."""
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def within(version: str, bounds: str) -> bool:
    """Whether a release such as "3.0.6" meets bounds such as ">=3.0,<3.1" or "==26.10.*"."""
    have = _numbers(version)
    for bound in filter(None, (b.strip() for b in bounds.split(","))):
        match = re.match(r"(>=|<=|==|!=|<|>|~=)\s*(.+)", bound)
        if not match:
            return False
        operator, want = match[1], _numbers(match[2])
        width = max(len(have), len(want))
        a, b = (v + (0,) * (width - len(v)) for v in (have, want))
        if match[2].endswith(".*"):
            a, b = a[: len(want)], b[: len(want)]
        passes = {
            ">=": a >= b, "<=": a <= b, "==": a == b, "!=": a != b, "<": a < b, ">": a > b,
            "~=": a >= b and a[: len(want) - 1] == want[:-1],
        }
        if not passes[operator]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(n) for n in match[0].split(".")) if match else (0,)
