"""What a run is going to do, and how much memory that takes, before it does it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from gpupipe.checkpoints import Checkpoints
from gpupipe.config import PipelineConfig
from gpupipe.engine.choose import Choice
from gpupipe.engine.memory import Layout
from gpupipe.folds import model_scope, processes_of, rounds_of
from gpupipe.prepare import Prepared
from gpupipe.steps.graph import Graph, feature_names, levels
from gpupipe.steps.scan import Unscanned, learn
from gpupipe.training import TOLERANCE, manner
from gpupipe.tune import graphs_of
from gpupipe.tune.space import families_of


@dataclass(frozen=True)
class Saved:
    """A stage of a run, and whether an earlier run has done it; ``why`` if not."""

    stage: str
    cached: bool
    why: str = ""


@dataclass(frozen=True)
class Plan:
    """Where a pipeline runs, in how many passes, and in how much memory.

    Attributes
    ----------
    scans : what each pass over the data learns.
    features : columns of the model's matrix, as far as is known before levels are counted.
    layout : what is kept in memory, and the predicted peak.
    stages : which stages are done already.
    search : what is searched, and for how long; empty where nothing is.
    """

    choice: Choice
    rows: int
    columns: int
    features: int
    scans: list[list[str]]
    steps: list[str]
    trainings: int
    layout: Layout
    stages: tuple[Saved, ...] = ()
    search: str = ""

    def lines(self) -> list[str]:
        """The plan in words."""
        text = [
            f"{self.rows:,} rows x {self.columns} columns",
            f"device {self.choice.device} ({self.choice.why}), engine {self.choice.kind}, "
            f"{self.choice.workers} workers, batches of {self.choice.batch_rows:,} rows",
            f"learns in {len(self.scans) + 1} scans: a profile, and {len(self.scans)} for the "
            f"steps; trains {self.trainings} {'model' if self.trainings == 1 else 'models'}",
        ]
        if self.search:
            text.append(self.search)
        if self.choice.remote:
            text.append(f"each worker is a process with {self.choice.threads} of the cores")
        text += [f"cluster: {note}" for note in self.choice.notes]
        text += [f"step {i}: {s}" for i, s in enumerate(self.steps, 1)]
        text += [f"scan {i} learns {_short(s)}" for i, s in enumerate(self.scans, 1)]
        kept = "kept in memory between scans" if self.layout.keep else "read again for every scan"
        matrix = {"memory": "in memory", "streamed": "streamed, made anew for every pass"}
        bins = {"memory": "in memory", "disk": "in files"}
        text.append(f"columns {kept}, matrix {matrix[self.layout.matrix]}, bins "
                    f"{bins[self.layout.bins]}")
        if self.layout.together:
            text.append("all workers train each model together")
        if self.layout.at_once > 1:
            text.append(f"{self.layout.at_once} folds are trained at once")
        text.append(f"predicted peak memory {self.layout.why}")
        if self.layout.peak > TOLERANCE * self.layout.limit:
            text.append("this is more than may be taken: a run would be refused")
        by_state: dict[str, list[str]] = {}
        for s in self.stages:
            by_state.setdefault("done by an earlier run" if s.cached else f"to do ({s.why})",
                                []).append(s.stage)
        text += [f"{state}: {'; '.join(names)}" for state, names in by_state.items()]
        return text

    def to_json(self) -> dict[str, Any]:
        return {
            **self.choice.to_json(), "rows": self.rows, "columns": self.columns,
            "features": self.features, "scans": self.scans, "steps": self.steps,
            "trainings": self.trainings, "search": self.search,
            "memory_bytes": self.layout.peak,
            "layout": self.layout.to_json(),
            "stages": [{"stage": s.stage, "cached": s.cached, "why": s.why} for s in self.stages],
        }


def _short(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def make_plan(
    choice: Choice, graph: Graph, rows: int, columns: int, folds: int, layout: Layout,
    stages: tuple[Saved, ...] = (), search: str = "",
) -> Plan:
    """The plan for a pipeline whose features are bound."""
    steps = [f"{s.name} on {_short(list(i))}" for s, i, _ in graph.stages if i]
    return Plan(choice, rows, columns, len(graph.outputs), levels(graph), steps, folds + 1,
                layout, stages, search)


def search_of(config: PipelineConfig, task: str) -> str:
    """What a pipeline searches, and for how long, in words."""
    rules = config.tune
    if not rules.wanted:
        return ""
    kinds = ", ".join(families_of(config, task))  # type: ignore[arg-type]
    budgets = [f"{value:,} {name.replace('_', ' ')}" for name in ("trials", "minutes", "work_units")
               if (value := getattr(rules, name)) is not None]
    until = " or ".join(budgets) if budgets else "all points of the grid"
    return f"first searches {kinds}: {until}, each trial on {config.split.folds} folds"


def plan_of(ready: Prepared, choice: Choice) -> Plan:
    """The plan for a pipeline of which nothing is learned yet, and what of it is done already."""
    graph = ready.graphs[0]
    there = choice.workers if choice.remote else 0
    stages, width = saved_stages(ready, there)
    width = max(width, *(len(g.outputs) for g in graphs_of(ready)), 0)
    return make_plan(choice, graph, ready.profile.rows, len(ready.reader.dataset.schema.fields),
                     len(ready.split.folds), ready.layout(width, there or None), stages,
                     search_of(ready.config, ready.target.task))


def saved_stages(ready: Prepared, there: int) -> tuple[tuple[Saved, ...], int]:
    """Which stages earlier runs on the same data have done; and the matrix's width so far known."""
    found = [Saved("profile", True)]  # whoever prepared has it now
    width = len(ready.graphs[0].outputs)
    try:
        fitted, knowledge = learn(ready.graphs, ready.views, ready.rowed, ready.profile.states,
                                  None, ready.checkpoints, scanning=False)
    except Unscanned as unscanned:
        found += [Saved(f"scan {i}", True) for i in range(1, unscanned.number)]
        return (*found, Saved(f"scan {unscanned.number}", False, unscanned.why)), width
    found += [Saved(f"scan {i}", True) for i, _ in enumerate(knowledge.scans, 1)]
    width = len(feature_names(ready.graphs[0], fitted[0][0]))
    how = manner(ready.config, ready.reader.engine)
    layout = ready.layout(width, there or None)
    waves = layout.waves(len(ready.split.folds), how.threads, bool(there))
    threads = {k: each for wave, each in waves for k in wave}
    parts = ready.rowed.rows
    for c, candidate in enumerate(ready.candidates):
        curves = []
        for k, part in enumerate(ready.split.folds):
            scope = model_scope(ready.checkpoints, candidate, fitted[c][k + 1],
                                (part.train, part.valid),
                                replace(how, threads=threads[k], processes=processes_of(
                                    candidate, there, parts, part.train, layout.together)))
            found.append(_saved(f"{candidate.name}, fold {k + 1}", scope))
            curves.append(scope.load("model")["curve"] if found[-1].cached else None)
        last = f"{candidate.name}, final"
        if not all(s.cached for s in found[len(found) - len(curves):]):
            found.append(Saved(last, False, "follows from the folds"))
            continue
        whole = replace(how, rounds=rounds_of(candidate, curves),
                        processes=processes_of(candidate, there, parts, ready.split.train))
        found.append(_saved(last, model_scope(ready.checkpoints, candidate, fitted[c][0],
                                              (ready.split.train,), whole)))
    return tuple(found), width


def _saved(name: str, scope: Checkpoints) -> Saved:
    if scope.has("model"):
        return Saved(name, True)
    begun = scope.load("rounds")
    return Saved(name, False, scope.missing("model") if begun is None
                 else f"goes on after {begun['rounds']} rounds")
