"""How good is what was found without a target: measured on rows, and between folds.

Quality is measured where no model has learned: the final model on the holdout, each fold's model
on its own fold; only where there is neither, on the training rows. What costs the square of the
rows is measured on a sample of them, chosen by the hash of their keys and the seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gpupipe.engine.arrays import to_host
from gpupipe.engine.hashing import mix64
from gpupipe.evaluate import clusters as measures
from gpupipe.matrices import Ask, Source, matrices, predict_chunks
from gpupipe.models import MODELS
from gpupipe.models.unsupervised import Finds, Found, typed
from gpupipe.training import Trained

SAMPLED = 1_500
"""Rows for what costs the square of them."""
BLOCK = 16_384
"""Rows whose features are looked at together."""
NORMAL = 1.959963984540054
BINS = 40


@dataclass(frozen=True)
class Judged:
    """A model with rows that it is judged by: view 0 is the final model, k + 1 that of fold k."""

    trained: Trained
    view: int
    buckets: tuple[int, ...]

    @property
    def model(self) -> Found:
        outcome = self.trained.model
        model: Any = outcome.models[self.view - 1] if self.view else outcome.final
        return model

    @cached_property
    def _matrix(self) -> Any:
        trained, outcome = self.trained, self.trained.model
        source = Source(trained.rowed, (), trained.layout.matrix == "streamed")
        ask = Ask(outcome.candidate.graph, outcome.views[self.view])
        return matrices(source, [ask], (), self.buckets, [False])[0][1]

    @cached_property
    def scores(self) -> np.ndarray:
        """What the model gives for the rows ``[n, outputs]``."""
        known = self.trained.model.holdout
        if not self.view and known is not None and self.buckets == self.trained.split.holdout:
            return known
        return predict_chunks(self.model, self._matrix)

    def features(self) -> Iterator[np.ndarray]:
        """The rows' features on the host, `BLOCK` rows at a time: float sums over them do not
        depend on how the table was read."""
        held: list[np.ndarray] = []
        for chunk in self._matrix.chunks:
            held.append(to_host(chunk).astype(np.float64))
            while sum(map(len, held)) >= BLOCK:
                rows = np.concatenate(held)
                yield rows[:BLOCK]
                held = [rows[BLOCK:]]
        yield np.concatenate(held)

    def clustered(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        row = 0
        for x in self.features():
            yield x, self.scores[row : row + len(x), 0].astype(np.int64)
            row += len(x)

    @cached_property
    def sample(self) -> tuple[np.ndarray, np.ndarray]:
        """Features and scores of at most `SAMPLED` rows: float64 ``[m, p]``, ``[m, outputs]``."""
        places = sampled(self.trained, self.buckets)
        taken, row = [], 0
        for x in self.features():
            taken.append(x[places[(places >= row) & (places < row + len(x))] - row])
            row += len(x)
        x = np.concatenate(taken)
        # A row is scored alone as in company, so the sample's scores need not be those of all.
        known = self.__dict__.get("scores")
        return x, self.model.predict(x.astype(np.float32)) if known is None else known[places]


def sampled(trained: Trained, buckets: Sequence[int]) -> np.ndarray:
    """Which of the rows in some buckets are in the sample: their numbers, ascending."""
    keys = np.concatenate([
        f.key[np.isin(r.bucket, list(buckets))]
        for f, r in zip(trained.profile.facts, trained.rowed.rows, strict=True)
    ])
    salt = mix64(np.array([trained.config.seed], np.uint64), np)[0]
    order = np.argsort(mix64(keys ^ salt ^ np.uint64(0x9E3779B97F4A7C15), np), kind="stable")
    return np.sort(order[:SAMPLED])


def finds_of(trained: Trained) -> Finds:
    finds: Finds = MODELS[trained.model.candidate.model.kind].finds
    return finds


def judge(trained: Trained) -> dict[str, Any]:
    """The metrics, in the shape of `judging.judge`; each part also has what was ``found``."""
    split, found = trained.split, dict[str, Any]()
    if trained.model.final is not None and split.holdout:
        found["holdout"] = _part(Judged(trained, 0, split.holdout))
    elif trained.model.final is not None and not split.folds:
        found["training"] = _part(Judged(trained, 0, split.train))
    if split.folds:
        agreement = _stability(trained)
        parts = [_part(Judged(trained, k + 1, fold.valid)) for k, fold in enumerate(split.folds)]
        folds = [{name: s["value"] for name, s in part["model"].items()} for part in parts]
        found["cross_validation"] = {
            "model": {name: _mean([f[name] for f in folds]) for name in folds[0]}
            | agreement,
            "rows": sum(p["rows"] for p in parts), "baselines": {}, "differences": {},
        }
        found["folds"] = folds
        if "holdout" in found:
            found["holdout"]["model"] |= agreement
    return found


def _part(judged: Judged) -> dict[str, Any]:
    finds = finds_of(judged.trained)
    scores, found = {
        "clusters": _clusters, "anomalies": _anomalies, "components": _components,
    }[finds](judged)
    wanted = measures.choose(finds, judged.trained.config.evaluate.metrics)
    return {"model": {name: scores[name] for name in wanted if name in scores},
            "rows": len(judged.scores), "baselines": {}, "differences": {}, "found": found}


def _clusters(judged: Judged) -> tuple[dict[str, Any], dict[str, Any]]:
    cluster = judged.scores[:, 0].astype(np.int64)
    x, some = judged.sample
    inside = some[:, 0] >= 0
    x, few = x[inside], some[inside, 0]
    undefined = _value(None, "undefined: fewer than two clusters have rows")
    scores = {"silhouette_score": undefined, "davies_bouldin_score": undefined,
              "calinski_harabasz_score": undefined}
    if len(np.unique(few)) > 1:
        found = measures.silhouettes(x, few)
        scores["silhouette_score"] = _interval(found)
    scores |= {name: _value(v) for name, v in measures.spread(judged.clustered).items()}
    scores["noise_share"] = _value(float((cluster < 0).mean()))
    scores["n_clusters"] = _value(float(len(np.unique(cluster[cluster >= 0]))))
    return scores, {"clusters": measures.cluster_sizes(cluster, judged.scores[:, 1])}


def _anomalies(judged: Judged) -> tuple[dict[str, Any], dict[str, Any]]:
    score, flag = judged.scores.T
    counts, edges = np.histogram(score, BINS, (0.0, 1.0))
    return ({"anomaly_share": _interval(flag), "mean_anomaly_score": _interval(score)},
            {"histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
             "quantiles": {f"{q:g}": float(np.quantile(score, q))
                           for q in (0.5, 0.9, 0.99, 0.999)}})


def _components(judged: Judged) -> tuple[dict[str, Any], dict[str, Any]]:
    x, some = judged.sample
    scores = {"trustworthiness": _value(measures.trustworthiness(x, some))}
    again = getattr(judged.model, "inverse", None)
    if again is not None:
        scores["explained_variance_ratio"] = _value(measures.explained_variance(x, again(some)))
    return scores, judged.model.facts()


def _stability(trained: Trained) -> dict[str, Any]:
    """How well the models of the folds agree on the same rows: a sample of the holdout, or of all
    training rows where there is none."""
    finds, split = finds_of(trained), trained.split
    name = list(measures.METRICS[finds])[-1]
    if name not in measures.choose(finds, trained.config.evaluate.metrics):
        return {}
    buckets = split.holdout or split.train
    found = [Judged(trained, k + 1, buckets).sample[1] for k in range(len(split.folds))]
    values = [v for v in measures.stability(finds, found) if np.isfinite(v)]
    if not values:
        return {name: _value(None, "undefined: one fold, or constant scores")}
    return {name: _value(float(np.mean(values)), f"mean of {len(values)} pairs of folds, the "
                         f"least {min(values):.3f}")}


def _value(value: float | None, note: str | None = None) -> dict[str, Any]:
    fine = value is not None and bool(np.isfinite(value))
    found: dict[str, Any] = {"value": value if fine else None, "low": None, "high": None}
    if note or not fine:
        found["note"] = note or "undefined: too few rows"
    return found


def _interval(values: np.ndarray) -> dict[str, Any]:
    """A mean over rows with its normal interval of 95 %, for the model as it is."""
    mean, n = float(values.mean()), len(values)
    half = NORMAL * float(values.std(ddof=1)) / np.sqrt(n) if n > 1 else float("nan")
    fine = bool(np.isfinite(half))
    return {"value": mean, "low": mean - float(half) if fine else None,
            "high": mean + float(half) if fine else None}


def _mean(values: Sequence[float | None]) -> dict[str, Any]:
    known = [v for v in values if v is not None]
    if not known:
        return _value(None, "undefined in every fold")
    return _value(float(np.mean(known)), f"mean of {len(known)} folds")


def assigned(trained: Trained, buckets: tuple[int, ...]) -> dict[str, np.ndarray]:
    """What the final model gives for the rows in some buckets, by output column."""
    judged = Judged(trained, 0, buckets)
    return typed(judged.model.outputs, judged.scores)


def pictures(trained: Trained) -> dict[str, Any]:
    """The report's pictures of what the final model finds, in a sample of the judged rows."""
    judged = Judged(trained, 0, trained.split.holdout or trained.split.train)
    x, some = judged.sample
    finds = finds_of(trained)
    if finds == "components":
        made = judged.model.facts()
        if some.shape[1] > 1:
            made["component_scatter"] = {"x": some[:, 0].tolist(), "y": some[:, 1].tolist()}
        return made
    plane, shares = _plane(x)
    scatter = {"x": plane[:, 0].tolist(), "y": plane[:, 1].tolist(), "shares": shares}
    if finds == "clusters":
        cluster = judged.scores[:, 0].astype(np.int64)
        sizes = measures.cluster_sizes(cluster, judged.scores[:, 1])
        return {"cluster_scatter": {**scatter, "cluster": some[:, 0].astype(int).tolist()},
                "cluster_sizes": sizes}
    found = _anomalies(judged)[1]["histogram"]
    return {"anomaly_scatter": {**scatter, "flag": (some[:, 1] > 0).tolist()},
            "anomaly_histogram": {**found, **judged.model.facts()}}


def _plane(x: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """The rows on their first two principal components ``[n, 2]``, and the components' shares of
    the variance; the second is 0 where there is one feature."""
    apart = x - x.mean(axis=0)
    values, vectors = np.linalg.eigh(apart.T @ apart)
    axes = np.zeros((x.shape[1], 2))
    for i in range(min(2, x.shape[1])):
        axis = vectors[:, -1 - i]
        axes[:, i] = axis * np.sign(axis[np.abs(axis).argmax()])
    total = float(values.sum()) or 1.0
    return apart @ axes, [float(v) / total for v in values[::-1][:2]]
