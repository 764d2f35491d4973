"""The pipeline file that an inspection proposes: short, with the reasons as comments."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpupipe.config import parse_config
from gpupipe.config.source import parse
from gpupipe.inspect import Inspection, Remark
from gpupipe.inspect.text import scalar

WIDTH = 100


def write_pipeline(
    inspection: Inspection, source: str, output: Path, reader: Mapping[str, Any] | None = None
) -> None:
    """Write the pipeline file to ``output`` (whole or not at all)."""
    text = pipeline_text(inspection, _relative(source, output), output.name, reader)
    beside = output.with_name(f".{output.name}.partial")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, output)  # noqa: PTH105


def pipeline_text(
    look: Inspection, source: str, name: str = "pipeline.yaml",
    reader: Mapping[str, Any] | None = None,
) -> str:
    """The file's text, checked: it parses, and what it says is what was meant."""
    drops = look.drops()
    lines = [
        f"# {look.rows:,} rows, {len(look.columns)} columns. "
        "Everything in comments is a default or a suggestion.",
        f"name: {scalar(_name(source))}",
        "data:",
        f"  source: {scalar(source)}",
        f"  target: {scalar(look.target.name)}{_about_target(look)}",
    ]
    if look.target.positive is not None:
        lines.append(f"  positive: {scalar(look.target.positive)}")
    lines += [f"  {key}: {scalar(value)}" for key, value in (reader or {}).items()]
    if drops:
        lines.append("  drop:")
        lines += [f"    - {scalar(c.name)}  # {_comment(c.why)}" for c in drops]
    codes = [r.columns[0] for r in look.remarks if r.kind == "code"]
    if codes:
        pairs = ", ".join(f"{scalar(c)}: string" for c in codes[:6])
        lines.append(f"  # types: {{{pairs}}}  # numbers that look like codes")
    for kind, title in (
        ("leak", "Suspected leaks: mend what is not known at the time of predicting. What blocks "
         "stops a run; leaks.acknowledged lets it pass."),
        ("strong", "Strong columns: are their values there when a prediction is made?"),
        ("duplicate", "Columns that say the same."),
        ("sentinel", "Numbers that may stand for missing."),
    ):
        remarks = [r for r in look.remarks if r.kind == kind]
        if remarks:
            lines.append(f"\n# {title}")
            for remark in remarks[:12]:
                lines += [f"#   {_comment(line)}" for line in _said(remark)]
            if len(remarks) > 12:
                lines.append(f"#   and {len(remarks) - 12} more: gpupipe init --json lists all")
    lines += ["", *_split(look), *_defaults(look)]
    text = "\n".join(lines) + "\n"
    _, origin = raw = parse(text, name, Path.cwd())
    config = parse_config(raw[0])
    meant = (source, look.target.name, look.target.positive, [c.name for c in drops])
    said = (config.data.source, config.data.target, config.data.positive, config.data.drop)
    if meant != said:
        raise origin.fault(("data",), f"what was written reads back as {said}, meant {meant}")
    return text


def _said(remark: Remark) -> list[str]:
    """A remark; of what the linter found, its name and the way out too."""
    found = remark.finding
    if found is None or found.rule == "strong":
        return [remark.text]
    blocks = " (blocks)" if found.blocks else ""
    return [f"{found.name}{blocks}: {found.text}", *([f"  {found.fix}"] if found.fix else [])]


def _name(source: str) -> str:
    """What reports and run folders call it: the file's name, of the characters allowed."""
    stem = Path(source).name.partition(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem)[:80].strip("-_") or "pipeline"


def _about_target(look: Inspection) -> str:
    target = look.target
    if target.task == "regression":
        return "  # regression"
    total = sum(count for _, count in target.classes)
    shares = ", ".join(f"{name} {count / total:.1%}" for name, count in target.classes[:4])
    more = f", and {len(target.classes) - 4} more" if len(target.classes) > 4 else ""
    return "  # " + _comment(f"{target.task}: {shares}{more}")


def _split(look: Inspection) -> list[str]:
    lines = []
    if look.time:
        lines.append(f"# Rows are in the order of {_comment(look.time)}; to predict the future:")
        lines.append(f"# split: {{by: time, time: {scalar(look.time)}}}")
    if look.group:
        lines.append(f"# {_comment(look.group)} fills several rows; to predict for new ones:")
        lines.append(f"# split: {{by: group, group: [{scalar(look.group)}]}}")
    return lines


def _defaults(look: Inspection) -> list[str]:
    by = "random" if look.target.task == "regression" else "stratified"
    return [
        f"# split: {{holdout: 0.2, folds: 5, by: {by}}}",
        "# features: inferred by type for the model; list steps here to choose your own",
        "# model: {kind: xgboost, params: {}}",
        "# evaluate: {baselines: [linear, constant], slices: [], confidence: 0.95}",
        "# engine: {device: auto, memory: auto}",
        "# seed: 0",
    ]


def _comment(text: str) -> str:
    """Text that stays on its line."""
    flat = "".join(ch if ch.isprintable() else " " for ch in text)
    return flat if len(flat) <= 160 else flat[:157] + "..."


def _relative(source: str, output: Path) -> str:
    """The source as seen from the file's folder; absolute where it was given so."""
    if "://" in source or Path(source).is_absolute():
        return source
    return Path(os.path.relpath(source, output.parent)).as_posix()
