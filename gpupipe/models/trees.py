"""Trees of any library as one XGBoost model, so that bundles need no other library to score.

A library's trees are taken as arrays over their nodes (`Tree`) and written in XGBoost's own
format (UBJ: https://xgboost.readthedocs.io/en/stable/tutorials/saving_model.html), from which
XGBoost loads them. Features are float32, and so are XGBoost's thresholds: a rule ``x <= t`` of
another library, on a float64 ``t``, becomes ``x < u`` with the float32 ``u`` next above ``t``,
which is the same for every float32 ``x``. Predictions are sums of float32 leaves; they differ
from the library's own, in float64, by the rounding of float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gpupipe.engine.arrays import namespace
from gpupipe.engine.frames import Array
from gpupipe.models import ubj
from gpupipe.models.base import Payload
from gpupipe.models.contributions import Contributions, tree_contributions, tree_work
from gpupipe.models.cuda import device_of
from gpupipe.models.libraries import xgboost_library
from gpupipe.models.native import StoredBooster

if TYPE_CHECKING:
    import xgboost

Link = Literal["identity", "logistic", "softmax", "log"]
"""What becomes of the sum of the leaves."""
OBJECTIVES: dict[Link, tuple[str, str, dict[str, Any]]] = {
    "identity": ("reg:squarederror", "0E0", {"reg_loss_param": {"scale_pos_weight": "1"}}),
    "logistic": ("binary:logistic", "5E-1", {"reg_loss_param": {"scale_pos_weight": "1"}}),
    "softmax": ("multi:softprob", "0E0", {"softmax_multiclass_param": {"num_class": ""}}),
    "log": ("count:poisson", "1E0", {"poisson_regression_param": {"max_delta_step": "0.7"}}),
}
"""For each link the objective of XGBoost that has it, the base score that adds nothing to the
sum, and its parameters in a model's file."""
VERSION = [3, 2, 0]
"""The version of XGBoost's format that is written; later ones read it."""
NO_PARENT = 2**31 - 1
LEAST_WEIGHT = 1e-6
"""A node without training rows weighs so much, for SHAP values divide by weights."""


@dataclass(frozen=True)
class Tree:
    """A tree as arrays ``[nodes]``, the root first.

    Attributes
    ----------
    left, right : the numbers of a node's children; -1 for a leaf.
    feature : which one a node looks at.
    threshold : float32; a value below it goes left.
    missing_left : whether a missing value does.
    value : what a leaf adds to its output; of an inner node, the mean of its leaves', or 0.
    weight : of the training rows that came to a node.
    gain : of a node's split; its share of all is the feature's importance.
    codes : of nodes that look at unordered codes, by their numbers, the codes that go right.
    """

    left: np.ndarray
    right: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    missing_left: np.ndarray
    value: np.ndarray
    weight: np.ndarray
    gain: np.ndarray
    codes: Mapping[int, np.ndarray] = field(default_factory=dict)


NEVER = -100.0
"""A margin from which a logistic or softmax makes no more than 4e-44, and an exponential too."""


def leaf(value: float) -> Tree:
    """A tree of its root alone."""
    one = np.ones(1)
    return Tree(-one.astype(np.int64), -one.astype(np.int64), 0 * one, 0 * one, one < 0,
                value * one, one, 0 * one)


def constant(y: np.ndarray, link: Link, classes: int) -> list[Tree]:
    """The trees of one round that predict the one value, or class, that ``y`` has."""
    value = float(y[0])
    if link == "softmax":
        return [leaf(0.0 if c == value else NEVER) for c in range(classes)]
    if link == "logistic":
        return [leaf(-NEVER if value else NEVER)]
    if link == "log":
        value = float(np.log(value)) if value > 0 else NEVER
    return [leaf(value)]


def above(thresholds: np.ndarray) -> np.ndarray:
    """The float32 ``u`` for which ``x < u`` is ``x <= t``, for every float32 ``x``."""
    with np.errstate(over="ignore"):  # what is past every float32 is past every feature
        nearest = thresholds.astype(np.float32)
        below = np.where(nearest > thresholds, np.nextafter(nearest, np.float32(-np.inf)),
                         nearest)
        return np.nextafter(below, np.float32(np.inf))


def _levels(tree: Tree) -> Tree:
    """The same tree, its nodes numbered level by level.

    XGBoost takes the right child to be the one after the left, which no library promises.
    """
    level, order = np.zeros(1, np.int64), []
    while len(level):
        order.append(level)
        inner = level[tree.left[level] >= 0]
        level = np.stack([tree.left[inner], tree.right[inner]], axis=1).ravel()
    old = np.concatenate(order)
    new = np.empty(len(old), np.int64)
    new[old] = np.arange(len(old))
    is_leaf = tree.left[old] < 0
    left, right = (np.where(is_leaf, -1, new[side[old]]) for side in (tree.left, tree.right))
    return Tree(left, right, tree.feature[old], tree.threshold[old], tree.missing_left[old],
                tree.value[old], tree.weight[old], tree.gain[old],
                {int(new[node]): codes for node, codes in tree.codes.items()})


def booster_of(
    rounds: Sequence[Sequence[Tree]], features: int, link: Link, threads: int = 1
) -> xgboost.Booster:
    """An XGBoost booster of these trees: in each round one for every output."""
    booster = xgboost_library().Booster({"nthread": threads})
    booster.load_model(bytearray(ubj.written(_model(rounds, features, link))))
    return booster


def _model(rounds: Sequence[Sequence[Tree]], features: int, link: Link) -> dict[str, Any]:
    outputs = len(rounds[0])
    objective, base, params = OBJECTIVES[link]
    trees = [tree for one in rounds for tree in one]
    classes = outputs if link == "softmax" else 0
    if classes:
        params = {"softmax_multiclass_param": {"num_class": str(classes)}}
    return {
        "learner": {
            "attributes": {}, "feature_names": [], "feature_types": [],
            "gradient_booster": {"name": "gbtree", "model": {
                "cats": {"enc": [], "feature_segments": np.empty(0, np.int32),
                         "sorted_idx": np.empty(0, np.int32)},
                "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": str(len(trees))},
                "iteration_indptr": [i * outputs for i in range(len(rounds) + 1)],
                "tree_info": [i for _ in rounds for i in range(outputs)],
                "trees": [_node_arrays(t, i, features) for i, t in enumerate(trees)],
            }},
            "learner_model_param": {
                "base_score": f"[{','.join([base] * outputs)}]", "boost_from_average": "0",
                "num_class": str(classes), "num_feature": str(features),
                "num_target": str(1 if classes else outputs),
            },
            "objective": {"name": objective, **params},
        },
        "version": VERSION,
    }


def _node_arrays(tree: Tree, number: int, features: int) -> dict[str, Any]:
    """A tree as XGBoost's file has it."""
    tree = _levels(tree)
    inner = np.flatnonzero(tree.left >= 0)
    parents = np.full(len(tree.left), NO_PARENT, np.int32)
    parents[tree.left[inner]] = parents[tree.right[inner]] = inner
    is_leaf = tree.left < 0
    value = tree.value.astype(np.float32)
    coded = np.array(sorted(tree.codes), np.int32)
    codes = [tree.codes[int(node)].astype(np.int32) for node in coded]
    sizes = np.array([len(c) for c in codes], np.int64)
    split_type = np.zeros(len(is_leaf), np.uint8)
    split_type[coded] = 1
    return {
        "base_weights": value, "categories": np.concatenate([*codes, np.empty(0, np.int32)]),
        "categories_nodes": coded, "categories_segments": np.cumsum(sizes) - sizes,
        "categories_sizes": sizes,
        "default_left": (tree.missing_left & ~is_leaf).astype(np.uint8), "id": number,
        "left_children": tree.left.astype(np.int32),
        "loss_changes": np.where(is_leaf, 0, tree.gain).astype(np.float32), "parents": parents,
        "right_children": tree.right.astype(np.int32),
        "split_conditions": np.where(is_leaf, value, tree.threshold).astype(np.float32),
        "split_indices": np.where(is_leaf, 0, tree.feature).astype(np.int32),
        "split_type": split_type,
        "sum_hessian": np.maximum(tree.weight, LEAST_WEIGHT).astype(np.float32),
        "tree_param": {"num_deleted": "0", "num_feature": str(features),
                       "num_nodes": str(len(is_leaf)), "size_leaf_vector": "1"},
    }


@dataclass
class FittedTrees:
    """A trained booster and the names of its features.

    ``rounds`` are None where the trees are no rounds but a forest. ``curve`` and ``judged``
    are those of `FittedModel`.
    """

    kind: str
    booster: xgboost.Booster | StoredBooster
    names: tuple[str, ...]
    task: str
    rounds: int | None
    curve: dict[str, Any] | None = None
    judged: Array | None = None
    device: str = "cpu"

    def predict(self, chunk: Array, rounds: int | None = None) -> Array:
        return self.finished(self.raw(chunk, rounds))

    def finished(self, raw: Array) -> Array:
        """What `predict` makes of the booster's own predictions."""
        return outputs_of(raw, self.task)

    def raw(self, chunk: Array, rounds: int | None = None) -> Array:
        """What the booster itself predicts: float32."""
        self._follow(chunk)
        kept = self.rounds or 0
        return self.booster.inplace_predict(
            chunk, iteration_range=(0, min(rounds or kept, kept)), validate_features=False
        )

    def contributions(self, chunk: Array, rounds: int | None = None) -> Contributions:
        """SHAP values, worked out where the chunk lies (see `contributions.Contributions`)."""
        self._follow(chunk)
        kept = self.rounds or 0
        return tree_contributions(xgboost_library(), self.booster, chunk, self.task,
                                  min(rounds or kept, kept))

    def contribution_work(self) -> float:
        return tree_work(self.booster, self.rounds)

    def _follow(self, chunk: Array) -> None:
        """Go to where a chunk lies, or XGBoost would copy the chunk to where it is."""
        if device_of(chunk) != self.device:
            self.device = device_of(chunk)
            self.booster.set_param({"device": self.device})

    def importances(self) -> list[tuple[str, float]]:
        gain = self.booster.get_score(importance_type="total_gain")
        named = [(name, float(gain.get(f"f{i}", 0.0))) for i, name in enumerate(self.names)]
        total = sum(value for _, value in named) or 1.0
        return sorted(((n, v / total) for n, v in named), key=lambda item: (-item[1], item[0]))

    def payload(self) -> Payload:
        booster = self.booster
        if self.rounds and self.rounds < booster.num_boosted_rounds():
            booster = booster[: self.rounds]
        return {"booster": bytes(booster.save_raw("ubj")), "names": list(self.names),
                "task": self.task, "rounds": self.rounds}


def outputs_of(scores: Array, task: str) -> Array:
    """XGBoost's float32 predictions as float64; shares that were rounded add up to 1 again."""
    xp = namespace(scores)
    scores = xp.asarray(scores, dtype="float64")
    if task == "binary":
        return xp.clip(scores, 0.0, 1.0)  # a mean of many shares may be rounded past 1
    return scores / scores.sum(axis=1, keepdims=True) if scores.ndim == 2 else scores


def restored_trees(kind: str, payload: Payload) -> FittedTrees:
    """The fitted trees of a payload."""
    booster = StoredBooster(payload["booster"], len(payload["names"]), payload.get("threads", 1))
    return FittedTrees(kind, booster, tuple(payload["names"]), payload["task"],
                       payload["rounds"])
