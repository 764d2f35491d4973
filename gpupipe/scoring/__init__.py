"""Scoring data that lies in files: `predict` streams, `evaluate` judges against labels."""

from gpupipe.scoring.files import bounds_columns, predict, scored_table
from gpupipe.scoring.judged import Labelled, evaluate, labelled
from gpupipe.scoring.source import read_as

__all__ = ["Labelled", "bounds_columns", "evaluate", "labelled", "predict", "read_as",
           "scored_table"]
