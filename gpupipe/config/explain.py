"""The section of a pipeline file on explanations."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from gpupipe.config.section import Section


class ExplainConfig(Section):
    """Why the model predicts what it does, on a sample of the judged rows."""

    rows: Annotated[int, Field(ge=0)] = 1000
    """Rows that the pictures are of, chosen by their hash; 0 for no explanations."""
    columns: Annotated[int, Field(ge=0)] = 6
    """Columns that get pictures of their own, the most important ones."""
    repeats: Annotated[int, Field(ge=2)] = 5
    """How often each column is permuted."""
    slices: Annotated[int, Field(ge=0)] = 10
    """Slices shown at most where the model is worse than elsewhere; 0 looks for none."""
    mistakes: Annotated[int, Field(ge=0)] = 10
    """Rows shown at most of those that the model is most wrong about; 0 for none."""


def _off(value: Any) -> Any:
    return {"rows": 0} if value is False else {} if value is True else value


Explain = Annotated[
    ExplainConfig, BeforeValidator(_off, json_schema_input_type=ExplainConfig | bool)
]
"""The section, or ``false`` for none."""
