"""One side of a comparison: everything that a pipeline learns, makes and predicts, on the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.engine.arrays import to_host
from gpupipe.engine.hashing import mix64
from gpupipe.evaluate.scores import evaluate
from gpupipe.models import FittedModel, restored
from gpupipe.models.base import Payload, innermost
from gpupipe.steps.base import Params
from gpupipe.steps.graph import Fitted, Graph, feature_names, matrix
from gpupipe.steps.scan import Rowed
from gpupipe.training import Trained

SAMPLE_ROWS = 100_000
"""Features and scores are compared on about so many rows, chosen by the hash of their key."""
_SALT = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, order=True)
class Place:
    """Where something was learned: by which model's features, in which view, by which step."""

    model: str
    view: str
    step: str
    column: str
    key: str


@dataclass(frozen=True)
class Observed:
    """What one side came to.

    Attributes
    ----------
    rule : of the split.
    keys, buckets, target, weight : of every row, in row order; weight may be None.
    states : the profile's arrays, by column and statistic.
    params : what every step learned.
    features : by model, the names of its features and float32 ``[sample, features]``.
    scores : of the one model, for the same rows.
    metrics : of the side's own model, on rows that it has not seen.
    model : the side's own final model.
    """

    rule: dict[str, Any]
    keys: np.ndarray
    buckets: np.ndarray
    target: np.ndarray
    weight: np.ndarray | None
    states: Mapping[tuple[str, str], Mapping[str, Any]]
    params: Mapping[Place, Params]
    features: Mapping[str, tuple[tuple[str, ...], np.ndarray]]
    scores: np.ndarray
    metrics: Mapping[str, float | None]
    fingerprint: dict[str, str]
    model: tuple[str, Payload]


def observe(
    trained: Trained, device: str, model: tuple[str, Payload] | None = None,
    keys: np.ndarray | None = None,
) -> Observed:
    """Look at what was trained, while its engine is there.

    Parameters
    ----------
    device : where scores are computed: cpu or cuda.
    model : kind and payload of the model whose scores are wanted; default: the side's own.
    keys : the hashes that choose the sample, in row order; default: the side's own.
    """
    rows = trained.rowed.rows
    own_keys = np.concatenate([f.key for f in trained.profile.facts])
    own = trained.final.kind, trained.final.payload()
    sampler = _Sampler(
        trained.rowed, _by_part(own_keys if keys is None else keys, trained),
        min(1.0, SAMPLE_ROWS / len(own_keys)),
        tuple((name, o.candidate.graph, o.fitted) for name, o in trained.outcomes.items()),
        *(model or own), device,
    )
    features, scores = sampler.all()
    weights = [r.weight for r in rows if r.weight is not None]
    return Observed(
        trained.split.to_json(), own_keys, np.concatenate([r.bucket for r in rows]),
        np.concatenate([r.target for r in rows if r.target is not None]),
        np.concatenate(weights) if weights else None,
        {(key.strip('"'), type(statistic).__name__): state.arrays()
         for (statistic, key), state in trained.profile.states.items()},
        _params(trained), features, scores, metrics_of(trained), trained.fingerprint, own,
    )


def metrics_of(trained: Trained) -> dict[str, float | None]:
    """The metrics of the model that was asked for, on the holdout or else out of fold."""
    outcome, rules = trained.model, trained.config.evaluate
    judged = trained.split.holdout or trained.oof_buckets
    prediction = outcome.holdout if trained.split.holdout else outcome.oof
    if prediction is None:
        return {}
    y, weight = trained.target_of(judged)
    scores = evaluate(trained.target.task, y, prediction, weight=weight,  # type: ignore[arg-type]
                      metrics=rules.metrics, resamples=0)
    return {name: s.value for name, s in scores.items()}


def _params(trained: Trained) -> dict[Place, Params]:
    found = {}
    for name, outcome in trained.outcomes.items():
        for v, fitted in enumerate(outcome.views):
            view = f"fold {v}" if v else "final"
            for bound in outcome.candidate.graph.bound:
                place = Place(name, view, bound.step.name, bound.column, bound.key)
                found[place] = fitted.params[bound.key]
    return found


def _by_part(keys: np.ndarray, trained: Trained) -> tuple[np.ndarray, ...]:
    """The same array, cut where the parts of the table end."""
    ends = np.cumsum([len(f.key) for f in trained.profile.facts])
    return tuple(np.split(keys, ends[:-1]))


@dataclass(frozen=True)
class _Sampler:
    """The features of a sample of rows, and one model's scores: made where the parts are."""

    rowed: Rowed
    keys: tuple[np.ndarray, ...]
    share: float
    graphs: tuple[tuple[str, Graph, Fitted], ...]
    kind: str
    payload: Payload
    device: str

    def all(self) -> tuple[dict[str, tuple[tuple[str, ...], np.ndarray]], np.ndarray]:
        """Features by model, and scores, in row order."""
        parts = dict(self.rowed.engine.map(self, range(len(self.keys))))
        pieces = [piece for i in sorted(parts) for piece in parts[i]]
        features = {}
        for name, graph, fitted in self.graphs:
            names = tuple(n for n, _ in feature_names(graph, fitted))
            made = [features_of[name] for features_of, _ in pieces]
            features[name] = names, np.concatenate([np.empty((0, len(names)), np.float32), *made])
        return features, np.concatenate([scores for _, scores in pieces])

    def __call__(self, index: int) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
        """One part's: features by model and scores, a batch after the other."""
        taken = mix64(self.keys[index] ^ _SALT, np) >> np.uint64(32) < self.share * 2**32
        model = on_device(self.kind, self.payload, self.device)
        columns = list(dict.fromkeys(c for _, graph, _ in self.graphs for c in graph.raw))
        found = []
        for batch, where in self.rowed.batches(index, columns):
            if not taken[where].any():
                continue
            made = {name: matrix(graph, fitted, batch)[batch.fx.to_device(taken[where])]
                    for name, graph, fitted in self.graphs}
            scores = to_host(model.predict(made["model"]))
            found.append(({name: to_host(values) for name, values in made.items()}, scores))
        return found


def on_device(kind: str, payload: Payload, device: str) -> FittedModel:
    """A model that predicts on a device, whichever it was trained on."""
    model = restored({"kind": kind, **payload})
    booster = getattr(innermost(model), "booster", None)
    if booster is not None:
        booster.set_param({"device": device})
    return model
