"""A GPU that is full: bins go to pages, and then it is said what would fit."""

from __future__ import annotations

from typing import Any

import pytest
from test_every_model import TARGETS, problem

from gpupipe.errors import ConfigError, EnvironmentFault
from gpupipe.models import Training, model_of, quantised, xgboost
from gpupipe.models.libraries import xgboost_library

FULL = "[12:00:00] /src/common/device_helpers.cuh:1: Memory allocation error on worker 0: " \
       "cudaErrorMemoryAllocation: out of memory"


@pytest.fixture
def asked(monkeypatch) -> list[Any]:
    """The spill folders that matrices were asked for with; without one the device is full."""
    found: list[Any] = []
    usual = quantised.quantised

    def made(matrix, params, reference, spill, *rest):
        found.append(spill)
        if spill is None:
            raise xgboost_library().core.XGBoostError(FULL)
        return usual(matrix, params, reference, spill, *rest)

    monkeypatch.setattr(xgboost, "quantised", made)
    return found


def test_bins_that_do_not_fit_go_to_pages(asked, tmp_path):
    model = model_of("xgboost", {"n_estimators": 3})
    fitted = model.fit(problem("binary"), None, TARGETS["binary"], Training(scratch=tmp_path))
    assert fitted.rounds == 3
    assert asked == [None, tmp_path]


def test_where_there_is_no_folder_for_them_it_is_told(asked):
    model = model_of("xgboost", {"n_estimators": 3})
    with pytest.raises(EnvironmentFault, match="no room to train on 1,200 rows of 4") as error:
        model.fit(problem("binary"), None, TARGETS["binary"], Training())
    assert "engine.device" in str(error.value.hint)


def test_any_other_refusal_is_the_parameters(monkeypatch):
    model = model_of("xgboost", {"n_estimators": 3, "max_depth": -7})
    with pytest.raises(ConfigError, match=r"XGBoost refused to train.*-7"):
        model.fit(problem("binary"), None, TARGETS["binary"], Training())
