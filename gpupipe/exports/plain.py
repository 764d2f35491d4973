"""What is left of a bundle's model when it is taken out of what wraps it."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpupipe.bundle.scoring import Bundle
from gpupipe.errors import ConfigError
from gpupipe.models.wrappers import Picked, WithInterval, WithSets


def plain_model(bundle: Bundle, what: str) -> tuple[Any, np.ndarray, list[str]]:
    """The model that predicts, which features of the matrix it sees (int64), and notes on what is
    left out: intervals and sets, which change no prediction.

    ConfigError for a model of several, or one whose predictions are corrected; ``what`` is the
    format's name.
    """
    model: Any = bundle.contents.model
    columns, notes = np.arange(len(bundle.feature_names)), []
    while hasattr(model, "inner"):
        if isinstance(model, Picked):
            columns = columns[model.columns]
        elif isinstance(model, (WithInterval, WithSets)):
            notes.append("intervals and sets of labels are left out")
        else:
            raise unknown_model(model.kind, what)
        model = model.inner
    return model, columns, notes


def unknown_model(kind: str, what: str) -> ConfigError:
    """The error for a model that a format has no word for."""
    return ConfigError(f"{what} has no equivalent of a model {kind!r}",
                       hint="export it with --format mlflow, which takes every bundle; or train "
                       "without calibration, blends and the like")
