"""The trees in a stored booster's bytes, as arrays over all their nodes; only if they are trees.

XGBoost takes what a file says at its word: a child that is not there is read from memory that is
not the tree's, and a node that is its own ancestor never ends. So a stored model is looked through
before the library sees it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.models import ubj

PER_NODE = {"left_children": np.int32, "right_children": np.int32, "split_indices": np.int32,
            "split_conditions": np.float32, "default_left": np.uint8, "split_type": np.uint8,
            "base_weights": np.float32, "loss_changes": np.float32, "sum_hessian": np.float32,
            "parents": np.int32}
"""The arrays ``[nodes]`` of a tree, and their types."""
NO_PARENT = 2**31 - 1
MOST_CODES = 1 << 24
"""Codes of categories are below this: float32 holds no others exactly."""


@dataclass(frozen=True)
class Forest:
    """The trees of a booster, in the order in which it adds them up.

    Attributes
    ----------
    features, groups : of the matrix; outputs of a row (one a class, or one).
    objective : its name.
    base : what `base_score` says, ``[groups]`` or ``[1]``: before the objective's link.
    weighted : whether trees have weights of their own (dart).
    parallel : trees of one group in a round.
    group : the output that a tree adds to, ``[trees]``.
    ends : how many trees the first so many rounds have, ``[rounds + 1]``.
    root : the number of a tree's first node, ``[trees]``.
    levels : the numbers of the nodes that are reached, level by level.
    left : the number of a node's left child, which the right one follows; -1 for a leaf.
    feature, threshold, missing_left : of inner nodes: a value below goes left.
    value : of leaves: float32.
    tree : the tree of a node.
    codes : by the number of a node that looks at codes, those that go right.
    """

    features: int
    groups: int
    objective: str
    base: np.ndarray
    weighted: bool
    parallel: int
    group: np.ndarray
    ends: np.ndarray
    root: np.ndarray
    levels: tuple[np.ndarray, ...]
    left: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    missing_left: np.ndarray
    tree: np.ndarray
    codes: Mapping[int, np.ndarray]

    @property
    def value(self) -> np.ndarray:
        """What leaves add, by node: XGBoost keeps it where inner nodes have their threshold."""
        return self.threshold


def forest_of(raw: bytes, features: int) -> Forest:
    """The trees of a model in UBJ. ValueError where it is not one of ``features`` features."""
    model = ubj.read(raw)
    try:
        return _forest(model, features)
    except (KeyError, TypeError, AttributeError, OverflowError, IndexError, ValueError) as error:
        raise ValueError(f"the model's bytes are not XGBoost's: {error!r}") from None


def _forest(model: Any, features: int) -> Forest:
    learner = model["learner"]
    booster, params = learner["gradient_booster"], learner["learner_model_param"]
    weighted = booster["name"] == "dart"
    _need(booster["name"] in ("gbtree", "dart"), f"a booster {booster['name']!r}")
    content = booster["gbtree"]["model"] if weighted else booster["model"]
    trees, shape = content["trees"], content["gbtree_model_param"]
    _need(int(params["num_feature"]) == features, "another number of features than their names")
    _need(int(shape["num_trees"]) == len(trees) > 0, "another number of trees than it says")
    groups = max(int(params["num_class"]), 1) * max(int(params.get("num_target", "1")), 1)
    group = np.array(content["tree_info"], np.int64)
    ends = np.array(content["iteration_indptr"], np.int64)
    _need(len(group) == len(trees) and group.min() >= 0 and group.max() < groups <= len(trees),
          "trees of groups that are not there")
    _need(ends[0] == 0 and ends[-1] == len(trees) and (np.diff(ends) >= 0).all(),
          "rounds that are not those of its trees")
    base = np.array([float(b) for b in str(params["base_score"]).strip("[]").split(",")])
    _need(len(base) in (1, groups) and np.isfinite(base).all(), "a base score that is none")
    if weighted:
        drop = np.asarray(booster["weight_drop"], np.float64)
        _need(drop.shape == (len(trees),), "weights that are not those of its trees")

    sizes = np.array([_checked(tree, features) for tree in trees])
    offset = np.cumsum(sizes) - sizes
    joined = {name: np.concatenate([tree[name] for tree in trees]) for name in (
        "left_children", "right_children", "split_indices", "split_conditions", "default_left")}
    tree_of = np.repeat(np.arange(len(trees)), sizes)
    left = np.where(joined["left_children"] < 0, -1, joined["left_children"] + offset[tree_of])
    codes: dict[int, np.ndarray] = {}
    for start, tree in zip(offset.tolist(), trees, strict=True):
        if len(tree["categories_nodes"]):
            codes |= {start + node: found for node, found in _codes(tree)}
    return Forest(
        features, groups, str(learner["objective"]["name"]), base, weighted,
        int(shape["num_parallel_tree"]), group, ends, offset, _levels(offset, left, len(left)),
        left, joined["split_indices"], joined["split_conditions"],
        joined["default_left"].astype(bool), tree_of, codes)


def _need(holds: Any, otherwise: str) -> None:
    if not holds:
        raise ValueError(f"the model has {otherwise}")


def _checked(tree: Mapping[str, Any], features: int) -> int:
    """How many nodes a tree has; ValueError where its arrays do not make one."""
    size = int(tree["tree_param"]["num_nodes"])
    for name, dtype in PER_NODE.items():
        array = tree[name]
        _need(isinstance(array, np.ndarray) and array.dtype == dtype and len(array) == size > 0,
              f"a tree whose {name} are not those of its nodes")
    _need(not np.isnan(tree["split_conditions"]).any(), "a tree with a NaN in it")
    _need(tree["tree_param"]["size_leaf_vector"] in ("0", "1"), "trees of several outputs")
    left, right = tree["left_children"], tree["right_children"]
    inner = left >= 0
    at = np.flatnonzero(inner)
    # The library takes the right child to be the one after the left.
    _need((left[inner] < size - 1).all() and (right[inner] == left[inner] + 1).all()
          and (left[~inner] == -1).all() and (right[~inner] == -1).all(),
          "a tree whose nodes are not its own")
    _need((tree["parents"][left[inner]] == at).all()
          and (tree["parents"][right[inner]] == at).all() and tree["parents"][0] == NO_PARENT,
          "a tree whose nodes have other parents")
    looked_at = tree["split_indices"][inner]
    _need(not len(looked_at) or (looked_at.min() >= 0 and looked_at.max() < features),
          "a tree that looks at a feature which is not there")
    coded = np.flatnonzero(tree["split_type"])
    _need(np.array_equal(coded, tree["categories_nodes"]) and inner[coded].all(),
          "a tree whose categories are not those of its nodes")
    return size


def _codes(tree: Mapping[str, Any]) -> list[tuple[int, np.ndarray]]:
    """The codes that go right, by node."""
    values, found = tree["categories"], []
    segments = zip(tree["categories_nodes"].tolist(), tree["categories_segments"].tolist(),
                   tree["categories_sizes"].tolist(), strict=True)
    for node, start, size in segments:
        _need(start >= 0 and size > 0 and start + size <= len(values), "categories out of bounds")
        own = values[start : start + size]
        _need(own.min() >= 0 and own.max() < MOST_CODES, "categories out of bounds")
        found.append((node, own))
    return found


def _levels(roots: np.ndarray, left: np.ndarray, nodes: int) -> tuple[np.ndarray, ...]:
    """The nodes level by level; each has one parent (`_checked`), so none comes twice."""
    level, levels = roots, []
    while len(level):
        levels.append(level)
        below = left[level]
        below = below[below >= 0]
        level = np.stack([below, below + 1], axis=1).ravel()
        _need(len(levels) <= nodes, "a tree without an end")
    return tuple(levels)
