"""What a linter finds: a name to acknowledge it by, how certain it is, the numbers, a way out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Severity = Literal["block", "warn"]

RULES = (
    "target-copy", "target-function", "target-sum", "target-product", "target-encoding",
    "missing-with-target", "filled-by-target", "id-order", "future", "later", "strong",
    "duplicates", "near-duplicates", "entity", "time-overlap", "time-gap",
)
"""What a finding can be, surest first; docs/leaks.md says what each is."""


@dataclass(frozen=True)
class Finding:
    """A suspected leak.

    Attributes
    ----------
    rule : one of `RULES`.
    columns : those that it is about.
    severity : block (nearly certain: a run stops) or warn.
    text : what was seen, in a sentence.
    evidence : the numbers behind it.
    fix : what to write into the pipeline file.
    acknowledged : whether the pipeline file lets it pass.
    """

    rule: str
    columns: tuple[str, ...]
    severity: Severity
    text: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    fix: str | None = None
    acknowledged: bool = False

    @property
    def name(self) -> str:
        """What it is acknowledged by: the rule and its columns, in alphabetical order."""
        return f"{self.rule}:{'+'.join(sorted(self.columns))}" if self.columns else self.rule

    @property
    def blocks(self) -> bool:
        return self.severity == "block" and not self.acknowledged

    def lines(self) -> list[str]:
        """The finding and its way out, for people."""
        state = "acknowledged" if self.acknowledged else self.severity
        return [f"{state}: {self.name}: {self.text}", *([f"fix: {self.fix}"] if self.fix else [])]

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "rule": self.rule, "columns": list(self.columns),
            "severity": self.severity, "acknowledged": self.acknowledged, "text": self.text,
            "evidence": dict(self.evidence), "fix": self.fix,
        }


def acknowledge(
    found: Iterable[Finding], names: Sequence[str]
) -> tuple[list[Finding], list[str]]:
    """The findings, those marked that ``names`` let pass, and the names that match none.

    A name is a finding's own, or that of the one column that it is about.
    """
    marked, used = [], set()
    for finding in found:
        own = {finding.name, *(finding.columns if len(finding.columns) == 1 else ())}
        hits = own & set(names)
        used |= hits
        marked.append(replace(finding, acknowledged=True) if hits else finding)
    return marked, [n for n in names if n not in used]


def ordered(found: Iterable[Finding]) -> list[Finding]:
    """What blocks first, then by rule, surest first."""
    return sorted(found, key=lambda f: (f.severity != "block", RULES.index(f.rule)))
