"""How answers look in a terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpupipe.console import say, table
from gpupipe.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from gpupipe.doctor import Diagnosis
    from gpupipe.inspect import Proposal
    from gpupipe.inspect.target import Proposed
    from gpupipe.parity import Certificate

STYLES = {"ok": "green", "missing": "yellow", "problem": "bold red"}


def trained(run: str | Path) -> Path:
    """The folder of a run or bundle that the user named, or the bundle of a version in a registry.

    ConfigError where there is none.
    """
    from gpupipe.registry import is_reference, resolve

    if is_reference(str(run)):
        return resolve(run).path
    run = Path(run)
    if run.is_dir():
        return run
    runs = run.parent if run.parent.is_dir() and run.parent != Path() else Path("runs")
    known = sorted(p.name for p in runs.glob("*/") if not p.name.startswith("."))
    near = did_you_mean(run.name, known)
    hint = "`gpupipe run pipeline.yaml` makes one"
    if near:
        hint = f"did you mean {str(runs / near)!r}?"
    elif known:
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
        others = (_value((b.get("metrics") or b).get(name)) for b in baselines.values())
        rows.append([name, measured.get("value"), _interval(measured), *others])
    table(["metric", "value", "interval", *baselines], rows, title)
    for name, measured in (data.get("metrics") or {}).items():
        if measured.get("note") and measured.get("value") is None:
            say(f"{name}: {measured['note']}", "dim")


def _value(measured: Any) -> Any:
    return measured.get("value") if isinstance(measured, Mapping) else measured


def trust(found: Mapping[str, Any], board: bool = True) -> None:
    """How far to trust the numbers: the leaderboard, the looks at the holdout, other splits."""
    from gpupipe.evaluate.trust import looked

    ranked, splits = found.get("leaderboard"), found.get("split_honesty")
    if ranked and board:
        leaderboard(ranked)
    for text in [*(ranked["sentences"] if ranked else ()), *looked(found.get("looks")),
                 *([splits["sentence"]] if splits else ())]:
        say(f"trust   {text}")


def leaderboard(ranked: Mapping[str, Any]) -> None:
    """The candidates, best first; those of one rank are not told apart."""
    entries: Sequence[Mapping[str, Any]] = ranked["entries"]
    costs = [k for k in ("seconds", "latency", "size") if any(e[k] is not None for e in entries)]
    table(
        ["rank", "candidate", "kind", ranked["metric"], "interval", "minus the best", "interval ",
         *costs],
        [[e["rank"], e["name"], e["kind"], e["score"]["value"], _interval(e["score"]),
          _value(e["difference"]), _interval(e["difference"]), *(e[k] for k in costs)]
         for e in entries], "leaderboard, out of fold",
    )


def _interval(measured: Mapping[str, Any] | None) -> str | None:
    low, high = ((measured or {}).get(k) for k in ("low", "high"))
    return f"{low:.4g} – {high:.4g}" if low is not None and high is not None else None


def result(done: Any, registered: str | None = None) -> None:
    """A finished run, and the version that it was added as."""
    found = done.to_json()
    metrics(found)
    trust(found, board=len((found["leaderboard"] or {}).get("entries", ())) > 3)
    if done.summary.get("selection"):
        say(_selected(done.summary["selection"]))
    notes(done.summary["notes"])
    say(f"report  {done.report}")
    say(f"bundle  {done.bundle}")
    if registered:
        say(f"version {registered}")
    latest = done.run.parent / "latest"
    name = latest if latest.exists() and latest.samefile(done.run) else done.run
    say(f"next    gpupipe predict {name} NEW_DATA --output predictions.parquet", "dim")


def cross_validated(pipeline: Path, runs: Path, found: Mapping[str, Any]) -> None:
    """The metrics out of fold, and within each fold."""
    metrics(found)
    folds = found["folds"]
    table(["metric", *(f"fold {k}" for k, _ in enumerate(folds, 1))],
          [[name, *(fold[name] for fold in folds)] for name in folds[0]])
    trust(found)
    notes(found["notes"])
    place = "" if runs == Path("runs") else f" --runs {runs}"
    say(f"next    gpupipe run {pipeline}{place}", "dim")


def notes(found: Sequence[str]) -> None:
    """What was decided on the way and the user should know."""
    for note in found:
        say(f"note    {note}", "yellow")


def run(shown: Mapping[str, Any]) -> None:
    """A run's metrics, and where they come from."""
    manifest = shown["manifest"]
    metrics(shown)
    trust(shown["all_metrics"])
    config, data, engine = manifest["config"], manifest["data"], manifest["engine"]
    kind, folds = manifest["split"]["by"], len(manifest["split"]["folds"])
    for name, value in {
        "run": manifest["run"], "created": manifest["created"],
        "data": f"{data['source']}: {data['rows']:,} rows x {data['columns']} columns",
        "target": config["data"]["target"],
        "split": f"{kind}, holdout {config['split']['holdout']:g}, {folds} folds",
        "model": config["model"]["kind"],
        "device": f"{engine['device']} ({engine['why']}), engine {engine['kind']}, "
        f"{engine['workers']} workers",
        "commit": manifest["git_commit"], "report": f"{shown['run']}/report.html",
    }.items():
        if value is not None:
            say(f"{name:<8}{value}")
    notes(manifest["notes"])
    if manifest.get("selection"):
        selection(manifest["selection"])
    table(["stage", "seconds"], [[k, v] for k, v in manifest["timings"].items()])


def compared(found: Mapping[str, Any], page: Path | None) -> None:
    """Two runs on the same rows."""
    from gpupipe.compare.page import MARKS, facts, shown_value

    left, right = (found[side]["run"] for side in ("left", "right"))
    say(f"left    {left}")
    say(f"right   {right}")
    table(["metric", "left", "right", "right - left", "interval", "better"],
          [[name, _value(m["left"]), _value(m["right"]), _value(m["difference"]),
            _interval(m["difference"]), MARKS[m["better"]]]
           for name, m in found["metrics"].items()])
    for one in found["tests"]:
        say(f"{one['name']} ({one['metric']}): p = {one['p']:.3g}; {one['about']}")
    for sliced in found["slices"]:
        table([sliced["column"], "rows", "left", "right", "right - left", "interval", "better"],
              [[r["level"], r["rows"], _value(r["left"]), _value(r["right"]),
                _value(r["difference"]), _interval(r["difference"]), MARKS[r["better"]]]
               for r in sliced["rows"]], f"{sliced['metric']} by {sliced['column']}")
    table(["", "left", "right"], [list(row) for row in facts(found)])
    for title, part in (("changed", found["changed"]), ("around it", found["around"])):
        table([title, "left", "right"],
              [[c["key"], shown_value(c["left"]), shown_value(c["right"])] for c in part])
    say(found["sentence"], "bold")
    if page is not None:
        say(f"page    {page}")

def selection(found: Mapping[str, Any]) -> None:
    """How often each feature was chosen, and what each method did."""
    say(_selected(found))
    total = found["trainings"]
    table(["feature", "folds", "", "final model"],
          [[f["name"], f"{f['folds']} of {total}", "█" * round(20 * (f["share"] or 0)),
            {True: "kept", False: "dropped", None: ""}[f["final"]]] for f in found["features"]])
    table(["method", "in", "out", "seconds"],
          [[m["method"], m["in"], m["out"], m["seconds"]] for m in found["methods"]])


def _selected(found: Mapping[str, Any]) -> str:
    """A selection in one line."""
    stable = found["stability"]["value"]
    over = "" if stable is None else f", stability {stable:.3g} over {found['trainings']} folds"
    return (f"{found['out']} of {found['in']} features chosen{over}; "
            f"choosing took {found['seconds']:.1f} s in all")


def judged(found: Mapping[str, Any]) -> None:
    """Metrics on labelled data, and on how many rows."""
    metrics(found)
    say(f"{found['rows']:,} rows judged{_set_aside(found)}")
    notes(found["notes"])


def written(output: Path, done: Mapping[str, Any]) -> None:
    """What `predict` wrote."""
    say(f"{done['rows']:,} rows scored to {output}{_set_aside(done)}")
    notes(done["notes"])


def _set_aside(done: Mapping[str, Any]) -> str:
    count = done["quarantined"]
    return f"; {count:,} could not be read and were left out" if count else ""


def findings(pipeline: Path, found: Sequence[Mapping[str, Any]]) -> None:
    """What `check` found, and whether a run would stop."""
    for finding in found:
        if finding["kind"] != "leak":
            say(f"- {finding['message']}")
            continue
        state = "acknowledged" if finding["acknowledged"] else finding["severity"]
        say(f"- {finding['name']} ({state}): {finding['message']}",
            "bold red" if finding["blocks"] else "")
        if finding["fix"] and not finding["acknowledged"]:
            say(f"  fix: {finding['fix']}")
    stops = [f["name"] for f in found if f.get("blocks")]
    if stops:
        named = ", ".join(f'"{name}"' for name in stops)
        say(f"{pipeline}: the target leaks, and a run would stop. Mend it as above, or let it "
            f"pass: leaks: {{acknowledged: [{named}]}}", "bold red")
    else:
        say(f"{pipeline}: {'worth a look' if found else 'nothing to mend'}; it can run")


def certificate(found: Certificate, page: Path) -> None:
    """The levels of parity, and where the certificate is."""
    left, right = found.about["left"], found.about["right"]
    table(["level", "promise", "found", "holds"],
          [[f"{v.name} {v.title}", v.promise, v.found, "yes" if v.holds else "NO"]
           for v in found.levels], f"{left['name']} against {right['name']}")
    say(f"{'parity holds' if found.holds else 'parity does not hold'}: {page}", "bold")


def diagnosis(found: Diagnosis) -> None:
    from rich.text import Text

    from gpupipe.console import stdout
    from gpupipe.engine.gpu import MARKS

    console = stdout()
    for finding in found.findings:
        mark = MARKS[finding.state], STYLES[finding.state]
        console.print(
            Text.assemble(mark, f"  {finding.what:<14}  {finding.detail}"), soft_wrap=True
        )
        if finding.mend:
            console.print(Text.assemble(" " * 20, ("-> ", "bold"), finding.mend), soft_wrap=True)
    say()
    if not found.gpu.usable:
        say("There is a GPU here, and it cannot be used yet:" if found.gpu.devices else
            "No GPU can be used here, and none is needed: everything runs on the CPU. If this "
            "machine should have one:")
        say(f"found   {found.gpu.why}")
        say(f"next    {found.gpu.mend}")
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
             c.distinct_text, _examples(c.examples)]
            for c in look.columns
        ],
        f"{look.source}: {look.rows:,} rows, {len(look.columns)} columns",
    )
    say(_proposed(look.target))
    for remark in look.remarks:
        style = "yellow" if remark.kind in ("leak", "id", "constant", "duplicate") else ""
        stdout().print(Text(f"{remark.kind}: {remark.text}", style=style), soft_wrap=True)
    stops = [r.finding.name for r in look.remarks if r.finding and r.finding.blocks]
    if stops:
        say(f"wrote {made.output}; a run would stop at {', '.join(stops)}: the file says how to "
            "mend it", "bold")
    else:
        say(f"wrote {made.output}; next: gpupipe run {made.output}", "bold")


def _examples(values: Sequence[str], width: int = 48) -> str:
    """As many of the values as fit, whole; a single long one is cut."""
    fitting = [v for i, v in enumerate(values) if len(", ".join(values[: i + 1])) <= width]
    return ", ".join(fitting) or "".join(values[:1])[: width - 1] + "…" * bool(values)


def _proposed(target: Proposed) -> str:
    positive = f", positive {target.positive!r}" if target.positive is not None else ""
    return f"target: {target.name!r} ({target.why}), {target.task}{positive}"
