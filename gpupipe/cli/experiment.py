"""``gpupipe experiment``: one function a verb and no logic."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpupipe.cli.options import Debug, Json, Source, example
from gpupipe.cli.outcome import Answer

app = typer.Typer(
    add_completion=False, help="A/B tests: plan them, deal units out, analyse what happened.",
    epilog="Begin with: gpupipe experiment plan --baseline 0.10 --effect 0.01",
)


@app.command(**example("gpupipe experiment plan new-ranker.yaml --data past.parquet "
                        "--output plan.json"))
def plan(
    experiment: Annotated[
        Path | None, typer.Argument(metavar="EXPERIMENT", help="The experiment's file.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="A table or log of the past: baselines and variances.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Register the plan: the file to write, .json or .yaml.")
    ] = None,
    per_day: Annotated[float | None, typer.Option(help="Units that come in a day.")] = None,
    baseline: Annotated[
        float | None, typer.Option(help="Without a file: the metric's value today.")
    ] = None,
    effect: Annotated[float | None, typer.Option(help="The least difference to find.")] = None,
    deviation: Annotated[
        float | None, typer.Option(help="Standard deviation between units; none: a proportion.")
    ] = None,
    units: Annotated[
        int | None, typer.Option(help="Units of both arms: what can be found with them.")
    ] = None,
    share: Annotated[float, typer.Option(help="The treatment's share of the units.")] = 0.5,
    alpha: Annotated[float, typer.Option(help="The probability of a false find.")] = 0.05,
    power: Annotated[float, typer.Option(help="The probability of finding the effect.")] = 0.8,
    sequential: Annotated[
        bool, typer.Option("--sequential", help="For a test that is looked at all the time.")
    ] = False,
    json: Json = False, debug: Debug = False,
) -> Answer:
    """Say how many units an experiment takes, and register the plan.

    Either from an experiment's file, or from --baseline and --effect (or --units) alone.
    """
    from gpupipe.cli import show_experiment as show
    from gpupipe.console import bars
    from gpupipe.experiment import workflow

    quick = {"baseline": baseline, "effect": effect, "deviation": deviation, "units": units,
             "share": share, "alpha": alpha, "power": power, "sequential": sequential}
    found = workflow.plan(experiment, data, output, per_day=per_day, quick=quick,
                          progress=bars())
    return Answer(found, lambda: show.plan(found))


@app.command(**example("gpupipe experiment assign plan.json users.parquet --output arms.parquet"))
def assign(
    experiment: Annotated[
        Path, typer.Argument(metavar="PLAN", help="A registered plan, or an experiment's file.")
    ],
    source: Annotated[
        str | None, typer.Argument(metavar="[SOURCE]", help="A table with the units' ids.")
    ] = None,
    unit: Annotated[
        list[str] | None, typer.Option("--id", help="One unit's id. Repeat it.")
    ] = None,
    output: Annotated[
        Path, typer.Option(help="The file to write, .parquet or .csv.")
    ] = Path("arms.parquet"),
    json: Json = False, debug: Debug = False,
) -> Answer:
    """Deal units out to arms, by hash: the same answer everywhere, and at every call."""
    from gpupipe.cli import show_experiment as show
    from gpupipe.console import bars
    from gpupipe.experiment import workflow

    found = workflow.assign_units(experiment, source, unit or [], output, progress=bars())
    return Answer(found, lambda: show.assigned(found))


@app.command(**example("gpupipe experiment analyse log/ --plan plan.json --outcomes "
                        "orders.parquet --page verdict.html"))
def analyse(
    source: Source,
    plan: Annotated[
        Path | None, typer.Option(help="A registered plan (its hash is checked), or a file.")
    ] = None,
    outcomes: Annotated[
        str | None, typer.Option(help="A table with the metrics, where SOURCE has them not.")
    ] = None,
    on: Annotated[
        str | None, typer.Option(help="The column that joins them.", show_default="the unit")
    ] = None,
    before: Annotated[
        str | None, typer.Option(help="A table or log of the time before: covariates by unit.")
    ] = None,
    unit: Annotated[str | None, typer.Option(help="Without a plan: the unit's column.")] = None,
    arm: Annotated[str | None, typer.Option(help="The arm's column.")] = None,
    control: Annotated[str | None, typer.Option(help="The arm to hold the others against.")] = None,
    share: Annotated[
        list[str] | None, typer.Option(help="ARM=SHARE as planned, where not equal. Repeat it.")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="A metric's column; the first one decides. Repeat it.")
    ] = None,
    guardrail: Annotated[
        list[str] | None, typer.Option(help="COLUMN=SHARE: a loss to be ruled out, as 0.02.")
    ] = None,
    covariate: Annotated[
        str | None, typer.Option(help="A column known before the experiment, for all metrics.")
    ] = None,
    slices: Annotated[
        list[str] | None, typer.Option("--slice", help="A column to look within. Repeat it.")
    ] = None,
    sequential: Annotated[
        bool, typer.Option("--sequential", help="Intervals that hold at every look.")
    ] = False,
    alpha: Annotated[float | None, typer.Option(help="The probability of a false find.")] = None,
    acknowledge_srm: Annotated[
        bool, typer.Option("--acknowledge-srm", help="Go on though the arms' sizes do not fit.")
    ] = False,
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Resamples of units for further intervals.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0,
    page: Annotated[Path | None, typer.Option(help="Write the verdict as an HTML page.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Read with so many Dask workers.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Read with the workers of this Dask scheduler.")
    ] = None,
    json: Json = False, debug: Debug = False,
) -> Answer:
    """Say what an experiment found, and whether that can be trusted.

    Ends with 4 where it cannot: the arms' sizes do not fit their shares, or the plan was changed
    after it was registered.
    """
    from gpupipe.cli import show_experiment as show
    from gpupipe.config import EngineConfig
    from gpupipe.console import bars
    from gpupipe.experiment import workflow

    engine = EngineConfig(kind="dask" if workers or address else "auto",
                          workers=workers or "auto", address=address)
    given = {"unit": unit, "arm": arm, "control": control, "shares": share, "metrics": metric,
             "guardrails": guardrail, "covariate": covariate, "slices": slices,
             "sequential": sequential, "alpha": alpha}
    found = workflow.analyse(
        source, plan, given=given, outcomes=outcomes, on=on, before=before,
        acknowledged=acknowledge_srm, resamples=bootstrap, seed=seed, page=page, engine=engine,
        progress=bars(),
    )
    return Answer(found, lambda: show.verdict(found, page), 4 if found["blocked"] else 0)
