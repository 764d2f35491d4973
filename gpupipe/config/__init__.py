"""The pipeline file: typed, strict, and able to say where in the file a mistake stands.

>>> config = parse_config({"data": {"source": "churn.csv", "target": "churned"}})
>>> config.split.folds, config.model.kind
(5, 'xgboost')

`source` reads YAML and remembers where each key stood; `model` is the typed content;
`check` turns what pydantic says about a value into one located `ConfigError`.
"""

from gpupipe.config.check import validated
from gpupipe.config.model import (
    DataConfig,
    EngineConfig,
    EvaluateConfig,
    ModelConfig,
    PipelineConfig,
    SplitConfig,
    dump_config,
    json_schema,
    load_config,
    parse_config,
)
from gpupipe.config.section import ColumnName, ColumnNames, Section
from gpupipe.config.units import bytes_of, microseconds_of

__all__ = [
    "ColumnName",
    "ColumnNames",
    "DataConfig",
    "EngineConfig",
    "EvaluateConfig",
    "ModelConfig",
    "PipelineConfig",
    "Section",
    "SplitConfig",
    "bytes_of",
    "dump_config",
    "json_schema",
    "load_config",
    "microseconds_of",
    "parse_config",
    "validated",
]
