"""Five-fold cross-validation: what gpupipe's folds cost, next to one fit and to scikit-learn.

    python benchmarks/five_fold.py --runs 3 --out benchmarks/results/five_fold.json
    python benchmarks/five_fold.py --only gpupipe-five gpupipe-one --runs 5

The contenders take turns, each run a fresh process, measured as in end_to_end.py:

gpupipe-five  gpupipe cross-validate benchmarks/pipelines/five_fold.yaml: five folds, no holdout
gpupipe-run   gpupipe run of the same: a final model of all rows, its report and its bundle, too
gpupipe-one   gpupipe run with a holdout of 20 % and no folds: one single fit
sklearn       rivals/sklearn_cross_val.py: cross_val_score with five folds

What counts as preprocessing:

learn         gpupipe's stages profile, split and learn the steps. They read and decode the file,
              which the other side has in memory by then.
preprocess    of gpupipe: learn and every stage that ends with "matrix", the final model's, too; of
              sklearn: fit_transform and transform of the features inside the five fits.

cross_val_score trains no final model, and nor does cross-validate; what a run takes beyond it is
told, but not judged. gpupipe's AUC is that of all out-of-fold predictions together, sklearn's the
mean of the folds'.

Medians decide; every single run is in the JSON. Exit code 1 if a contender failed, a limit was
missed, or one could not be judged because gpupipe did not time its folds' matrices apart.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import end_to_end
import yaml
from end_to_end import HERE, Result, arguments, script_command, summarise, take_turns, written

PIPELINE = HERE / "pipelines" / "five_fold.yaml"
FOLDS = 5
LEARN = ("profile", "split", "learn the steps")
# What is asked for.
LEARN_LIMIT = 1.5  # learn of gpupipe-five / gpupipe-one, at most
PREPROCESS_LIMIT = 4.0  # preprocess of sklearn / gpupipe-five, at least
WALL_LIMIT = 0.5  # wall time of gpupipe-five / sklearn, at most


def gpupipe_command(verb: str, **split: float) -> Callable[[Path, Path], list[str]]:
    """The pipeline file, pointed at the data and with this split."""

    def command(data: Path, folder: Path) -> list[str]:
        config = yaml.safe_load(PIPELINE.read_text())
        config["data"]["source"] = str(data)
        config["split"] = split
        pipeline = folder / "pipeline.yaml"
        pipeline.write_text(yaml.safe_dump(config, sort_keys=False))
        return [sys.executable, "-m", "gpupipe.cli", verb, str(pipeline), "--json"]

    return command


CONTENDERS: dict[str, Callable[[Path, Path], list[str]]] = {
    "gpupipe-five": gpupipe_command("cross-validate", holdout=0, folds=FOLDS),
    "gpupipe-one": gpupipe_command("run", holdout=0.2, folds=0),
    "sklearn": script_command("sklearn_cross_val.py"),
    "gpupipe-run": gpupipe_command("run", holdout=0, folds=FOLDS),
}


def preprocessing(name: str, stages: dict[str, float]) -> dict[str, float]:
    """Seconds of preprocessing in one run, from its stages."""
    if name == "sklearn":
        return {"preprocess_s": stages["preprocess"]}
    learn = sum(stages[stage] for stage in LEARN)
    matrices = {stage: s for stage, s in stages.items() if stage.endswith("matrix")}
    return {
        "learn_s": round(learn, 3),
        "preprocess_s": round(learn + sum(matrices.values()), 3),
        "fold_matrices": sum(stage.startswith("fold ") for stage in matrices),
    }


def medians(runs: Sequence[Result]) -> dict[str, Result]:
    """The medians of end_to_end.py and those of preprocessing."""
    summary = summarise(runs)
    for name, row in summary.items():
        own = [r for r in runs if r["contender"] == name and "error" not in r]
        for key in ("learn_s", "preprocess_s", "fold_matrices"):
            if key in own[0]:
                row[key] = statistics.median(r[key] for r in own)
    return summary


def check(what: str, over: float, under: float, bound: str, limit: float | None) -> Result:
    ratio = over / under
    found: Result = {"what": what, "value": round(ratio, 3), "bound": bound, "limit": limit}
    if limit is not None:
        found["ok"] = ratio <= limit if bound == "at most" else ratio >= limit
    return found


def verdicts(summary: dict[str, Result]) -> list[Result]:
    """The ratios asked for, where both sides ran; one without a limit is for information."""
    found: list[Result] = []
    five, one, rival, run = (summary.get(name) for name in CONTENDERS)
    if five is None:
        return found
    if one is not None:
        found.append(check("learn, five / one", five["learn_s"], one["learn_s"],
                           "at most", LEARN_LIMIT))  # fmt: skip
    if rival is not None:
        apart = five["fold_matrices"] == FOLDS
        found.append(check("preprocess, sklearn / five", rival["preprocess_s"],
                           five["preprocess_s"], "at least", PREPROCESS_LIMIT))  # fmt: skip
        if not apart and found[-1]["ok"]:
            # The folds' matrices are missing in five's seconds, so that the ratio is too good.
            found[-1] |= {"ok": False, "undecided": "the folds' matrices are not timed apart"}
        found.append(check("wall, five / sklearn", five["wall_s"], rival["wall_s"],
                           "at most", WALL_LIMIT))  # fmt: skip
        found.append(check("learn alone, sklearn / five", rival["preprocess_s"],
                           five["learn_s"], "", None))  # fmt: skip
    if rival is not None and run is not None:
        found.append(check("wall, run / sklearn", run["wall_s"], rival["wall_s"], "", None))
    if one is not None:
        found.append(check("preprocess, five / one", five["preprocess_s"],
                           one["preprocess_s"], "", None))  # fmt: skip
    return found


def table(summary: dict[str, Result], checks: Sequence[Result]) -> str:
    lines = [
        f"{'median':<14}{'runs':>5}{'wall s':>9}{'CPU s':>9}{'peak MB':>9}{'AUC':>9}"
        f"{'learn s':>9}{'preprocess s':>14}"
    ]
    for name, row in summary.items():
        learn = f"{row['learn_s']:.2f}" if "learn_s" in row else "-"
        lines.append(
            f"{name:<14}{row['runs']:>5}{row['wall_s']:>9.2f}{row['cpu_s']:>9.2f}"
            f"{row['peak_mb']:>9.0f}{row['auc']:>9.4f}{learn:>9}{row['preprocess_s']:>14.2f}"
        )
    lines.append("")
    for name, row in summary.items():
        stages = "  ".join(f"{stage} {value:.2f}" for stage, value in row["stages"].items())
        lines.append(f"{name:<14}{stages}")
    if checks:
        lines += ["", "ratios"]
    for each in checks:
        line = f"  {each['what']:<30}{each['value']:>8.3f}"
        if each["limit"] is not None:
            word = "ok" if each["ok"] else "MISSED"
            if "undecided" in each:
                word = f"UNDECIDED, {each['undecided']}"
            line += f"   {each['bound']} {each['limit']}  {word}"
        lines.append(line)
    return "\n".join(lines)


def preprocessed(run: Result) -> None:
    try:
        run |= preprocessing(run["contender"], run["stages"])
    except KeyError as fault:
        run["error"] = f"no stage {fault} among {', '.join(run['stages'])}"


def main() -> int:
    end_to_end.CONTENDERS.update(CONTENDERS)  # where run_once looks for them
    args = arguments(__doc__ or "", list(CONTENDERS), 3)
    runs = take_turns(args, preprocessed)
    summary = medians(runs)
    checks = verdicts(summary)
    print(table(summary, checks))
    written(args, summary, checks, runs)
    failed = any("error" in r for r in runs) or not all(c.get("ok", True) for c in checks)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
