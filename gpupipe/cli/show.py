"""How answers look in a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpupipe.console import say, table
from gpupipe.errors import ConfigError

if TYPE_CHECKING:
    from gpupipe.doctor import Diagnosis
    from gpupipe.inspect import Proposal

MARKS = {"ok": ("ok", "green"), "missing": ("--", "yellow"), "problem": ("!!", "bold red")}


def trained(run: Path) -> Path:
    """The folder of a run or bundle that the user named; ConfigError where there is none."""
    if run.is_dir():
        return run
    runs = run.parent if run.parent.is_dir() else Path("runs")
    known = sorted(p.name for p in runs.glob("*/") if not p.name.startswith("."))
    hint = "`gpupipe run pipeline.yaml` makes one"
    if known:
        hint = f"in {runs} there are {', '.join(known[-5:])}"
    raise ConfigError("there is no such run", where=str(run), hint=hint)


def lines(text: Sequence[str]) -> None:
    for line in text:
        say(line)


def document(data: Mapping[str, Any]) -> None:
    say(json.dumps(data, indent=2, ensure_ascii=False))


def metrics(data: Mapping[str, Any], title: str = "") -> None:
    """Metrics with their intervals, baselines in further columns."""
    baselines: Mapping[str, Mapping[str, Any]] = data.get("baselines") or {}
    rows = []
    for name, measured in (data.get("metrics") or {}).items():
        value, low, high = (measured.get(k) for k in ("value", "low", "high"))
        interval = f"{low:.4g} – {high:.4g}" if low is not None and high is not None else None
        others = (_value((b.get("metrics") or b).get(name)) for b in baselines.values())
        rows.append([name, value, interval, *others])
    table(["metric", "value", "interval", *baselines], rows, title)


def _value(measured: Any) -> Any:
    return measured.get("value") if isinstance(measured, Mapping) else measured


def result(done: Any) -> None:
    """A finished run."""
    metrics(done.to_json())
    say(f"report  {done.report}")
    say(f"bundle  {done.bundle}")
    say(f"next    gpupipe predict {done.run} NEW_DATA --output predictions.parquet", "dim")


def run(shown: Mapping[str, Any]) -> None:
    """A run's manifest and metrics."""
    manifest = shown.get("manifest", shown)
    metrics({"metrics": {}, **shown})
    for name in ("name", "run", "bundle", "created", "device", "engine", "seed", "git_commit"):
        value = manifest.get(name, shown.get(name))
        if isinstance(value, (str, int, float)):
            say(f"{name:<10}  {value}")
    timings = manifest.get("timings") or shown.get("timings")
    if isinstance(timings, Mapping) and timings:
        table(["stage", "seconds"], [[k, v] for k, v in timings.items()])


def written(output: Path, done: Mapping[str, Any]) -> None:
    rows = done.get("rows")
    say(f"{rows:,} rows scored to {output}" if rows is not None else f"wrote {output}")


def findings(pipeline: Path, found: Sequence[Any]) -> None:
    for finding in found:
        say(f"- {finding.get('message', finding) if isinstance(finding, Mapping) else finding}")
    say(f"{pipeline}: {'worth a look' if found else 'nothing to mend'}; it can run")


def diagnosis(found: Diagnosis) -> None:
    from rich.text import Text

    from gpupipe.console import stdout

    console = stdout()
    for finding in found.findings:
        mark, style = MARKS[finding.state]
        console.print(
            Text.assemble((mark, style), f"  {finding.what:<14}  {finding.detail}"), soft_wrap=True
        )
        if finding.mend:
            console.print(Text.assemble(" " * 20, ("-> ", "bold"), finding.mend), soft_wrap=True)
    say()
    say(f"device: auto means {found.device} here ({found.why}); engine: {found.engine}", "bold")
    if not found.healthy:
        say("some packages do not fit: mend the lines marked !! first", "bold red")


def proposal(made: Proposal) -> None:
    from rich.text import Text

    from gpupipe.console import stdout

    look = made.inspection
    table(
        ["column", "type", "role", "nulls", "distinct", "examples"],
        [
            [c.name, c.dtype, c.role, f"{c.null_share:.1%}" if c.nulls else "",
             c.distinct_text, ", ".join(c.examples)[:48]]
            for c in look.columns
        ],
        f"{look.source}: {look.rows:,} rows, {len(look.columns)} columns",
    )
    for remark in look.remarks:
        style = "yellow" if remark.kind in ("leak", "id", "constant", "duplicate") else ""
        stdout().print(Text(f"{remark.kind}: {remark.text}", style=style), soft_wrap=True)
    say(f"wrote {made.output}; next: gpupipe run {made.output}", "bold")
