"""``gpupipe experiment``: the known A/B test, plans and their hashes, arms, and bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from gpupipe.cli.outcome import call
from gpupipe.experiment.assign import Split, assign
from gpupipe.experiment.plan import plan_hash


@pytest.fixture
def ask(capfd: pytest.CaptureFixture[str]) -> Any:
    """A call of the command line: its exit code and its JSON answer."""

    def asked(*arguments: object) -> tuple[int, dict[str, Any]]:
        code = call(["experiment", *map(str, arguments), "--json"])
        return code, json.loads(capfd.readouterr().out)

    return asked


@pytest.fixture
def users(tmp_path: Path) -> Path:
    rng = np.random.default_rng(11)
    n = 6_000
    split = Split("ranker", {"control": 0.5, "new": 0.5})
    arm = [assign(i, split).arm for i in range(n)]
    new = np.array(arm) == "new"
    before = rng.normal(10, 3, n)
    table = pd.DataFrame({
        "user": range(n), "variant": arm, "before": before,
        "spent": before + rng.normal(0, 2, n) + 0.5 * new,
        "sessions": rng.poisson(5, n), "bought": rng.random(n) < 0.2 + 0.05 * new,
        "plan": np.where(np.arange(n) % 3, "free", "paid"), "note": "hello",
    })
    path = tmp_path / "users.parquet"
    table.to_parquet(path)
    return path


EXPERIMENT = {
    "name": "ranker", "hypothesis": "The new ranker sells more.", "unit": "user",
    "arms": {"control": 0.5, "new": 0.5},
    "primary": {"name": "bought", "effect": 0.05},
    "secondary": [{"name": "spent", "covariate": "before"}],
    "guardrails": [{"name": "sessions", "relative_margin": 0.05}], "slices": ["plan"],
}


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    path = tmp_path / "ranker.yaml"
    path.write_text(yaml.safe_dump(EXPERIMENT))
    return path


def test_the_known_ab_test_is_blocked_by_its_sample_ratio(ask: Any, shared_data: Path) -> None:
    cats = shared_data / "cookie-cats" / "cookie_cats.csv"
    options = ("--unit", "userid", "--arm", "version", "--metric", "retention_7")
    code, found = ask("analyse", cats, *options)
    assert code == 4 and found["blocked"]
    assert round(found["srm"]["p"], 4) == 0.0086 and found["srm"]["ok"] is False
    assert {a["name"]: a["units"] for a in found["arms"]} == {"gate_30": 44_700, "gate_40": 45_489}
    code, found = ask("analyse", cats, *options, "--acknowledge-srm")
    (metric,) = found["metrics"]
    assert code == 0 and metric["kind"] == "proportion"
    assert round(metric["arms"]["gate_30"]["value"], 4) == 0.1902
    assert round(metric["arms"]["gate_40"]["value"], 4) == 0.1820
    (effect,) = metric["effects"]
    assert effect["state"] == "worse" and round(effect["p"], 5) == 0.00155
    assert found["verdicts"]["gate_40"]["state"] == "worse"


def test_a_plan_is_registered_once_and_its_hash_is_that_of_canonical_json(
    ask: Any, experiment: Path, users: Path, tmp_path: Path
) -> None:
    plan = tmp_path / "plan.json"
    code, found = ask("plan", experiment, "--data", users, "--output", plan, "--per-day", 100)
    assert code == 0
    written = json.loads(plan.read_text())
    assert written["hash"] == found["hash"] == plan_hash(written["plan"])
    assert written["plan"]["horizon"]["units"] == found["units"]
    assert found["days"] == -(-found["units"] // 100)
    by_name = {m["metric"]: m for m in found["metrics"]}
    assert by_name["bought"]["baseline"] == pytest.approx(0.22, abs=0.03)
    assert written["plan"]["primary"][0]["kind"] == "proportion"
    code, found = ask("plan", experiment, "--output", plan)
    assert code == 2 and "there already" in found["error"]["message"]


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_a_changed_plan_blocks_the_verdict(
    ask: Any, experiment: Path, users: Path, tmp_path: Path, suffix: str
) -> None:
    plan = tmp_path / f"plan{suffix}"
    ask("plan", experiment, "--data", users, "--output", plan)
    code, found = ask("analyse", users, "--plan", plan)
    assert (code, found["plan"]["status"]) == (0, "registered")
    assert found["verdicts"]["new"]["state"] == "better"
    text = plan.read_text()
    plan.write_text(text.replace("0.05", "0.06"))
    assert plan.read_text() != text
    code, found = ask("analyse", users, "--plan", plan)
    assert (code, found["plan"]["status"]) == (4, "changed")
    assert "changed after it was registered" in found["verdicts"]["new"]["why"][0]


def test_metrics_guardrails_slices_and_covariates_of_a_plan(
    ask: Any, experiment: Path, users: Path
) -> None:
    code, found = ask("analyse", users, "--plan", experiment, "--bootstrap", 200)
    assert code == 0 and found["plan"]["status"] == "none"
    by_name = {m["name"]: m for m in found["metrics"]}
    assert by_name["sessions"]["effects"][0]["non_inferiority"]["state"] == "holds"
    reduction = by_name["spent"]["effects"][0]["cuped"]["variance_reduction"]
    assert reduction == pytest.approx(9 / 13, abs=0.05)
    (sliced,) = found["slices"]
    assert [v["level"] for v in sliced["levels"]] == ["free", "paid"]
    drawn = by_name["bought"]["effects"][0]["bootstrap"]["difference"]
    assert drawn["low"] < 0.05 < drawn["high"]
    assert ask("analyse", users, "--plan", experiment, "--bootstrap", 200)[1]["metrics"] == (
        found["metrics"])


def test_an_early_look_at_a_fixed_horizon_is_no_verdict(
    ask: Any, experiment: Path, users: Path
) -> None:
    experiment.write_text(yaml.safe_dump({**EXPERIMENT, "horizon": {"units": 20_000}}))
    code, found = ask("analyse", users, "--plan", experiment)
    assert code == 0 and found["verdicts"]["new"]["state"] == "too early"
    experiment.write_text(yaml.safe_dump({**EXPERIMENT, "horizon": {"until": "9999-12-31"}}))
    found = ask("analyse", users, "--plan", experiment)[1]
    assert found["verdicts"]["new"]["state"] == "too early"
    experiment.write_text(yaml.safe_dump(
        {**EXPERIMENT, "horizon": {"units": 20_000}, "look": "sequential"}))
    found = ask("analyse", users, "--plan", experiment)[1]
    assert found["verdicts"]["new"]["state"] in ("better", "guardrail open", "no difference shown")
    (effect,) = found["metrics"][0]["effects"]
    assert effect["difference"]["low"] < effect["fixed"]["low"]


def test_the_page_is_one_file_that_says_the_verdict(
    ask: Any, experiment: Path, users: Path, tmp_path: Path
) -> None:
    page = tmp_path / "verdict.html"
    ask("analyse", users, "--plan", experiment, "--page", page)
    html = page.read_text()
    for text in ("Ship it", "The new ranker sells more.", "Can we trust it?", "Guardrails",
                 "For whom?", "within margin", "Next"):
        assert text in html, text
    assert "http://" not in html and "https://" not in html and "<script" not in html


def test_arms_of_a_table_are_those_of_the_function(
    ask: Any, experiment: Path, users: Path, tmp_path: Path
) -> None:
    out = tmp_path / "arms.parquet"
    code, found = ask("assign", experiment, users, "--output", out)
    dealt = pd.read_parquet(out)
    split = Split("ranker", {"control": 0.5, "new": 0.5})
    assert code == 0 and found["rows"] == len(dealt) == 6_000
    assert dealt.arm.tolist() == [assign(i, split).arm for i in range(6_000)]
    code, found = ask("assign", experiment, "--id", "17")
    assert found["units"] == [{"unit": "17", "arm": assign(17, split).arm, "why": "assigned"}]


def test_a_plan_without_a_file(ask: Any) -> None:
    _, found = ask("plan", "--baseline", 0.10, "--effect", 0.01)
    assert round(found["control_units"], 1) == 14_744.1
    _, found = ask("plan", "--baseline", 0.10, "--units", 29_489)
    assert found["detectable"] == pytest.approx(0.01, rel=1e-3)
    code, found = ask("plan")
    assert code == 2 and "--baseline" in found["error"]["hint"]


@pytest.mark.parametrize(("options", "says"), [
    (("--baseline", "1.2", "--effect", "0.1"), "lies between 0 and 1"),
    (("--baseline", "0.95", "--effect", "0.1"), "between 0 and 1"),
    (("--deviation", "0", "--effect", "0.1"), "above 0"),
    (("--deviation", "1", "--effect", "0"), "cannot be 0"),
    (("--baseline", "0.1", "--units", "0"), "nothing is told"),
    (("--baseline", "0.1", "--effect", "0.01", "--share", "1"), "between 0 and 1"),
    (("--baseline", "0.1", "--effect", "0.01", "--power", "1"), "between 0 and 1"),
    (("--baseline", "0.1", "--effect", "0.01", "--output", "plan.json"), "experiment's file"),
])
def test_a_plan_that_cannot_be_is_refused(ask: Any, options: tuple[str, ...], says: str) -> None:
    code, found = ask("plan", *options)
    assert code == 2 and says in found["error"]["message"]


def test_planned_shares_may_be_given_without_a_plan(ask: Any, users: Path) -> None:
    options = ("--metric", "bought", "--share", "control=0.5")
    assert ask("analyse", users, *options)[0] == 2
    code, found = ask("analyse", users, *options, "--share", "new=0.5")
    assert code == 0 and found["srm"]["ok"]
    code, found = ask("analyse", users, "--metric", "bought", "--share", "control=0.6",
                      "--share", "new=0.4")
    assert code == 4 and found["srm"]["ok"] is False


@pytest.mark.parametrize(("options", "code", "says"), [
    (("--metric", "bougth"), 2, "did you mean 'bought'?"),
    (("--metric", "note"), 3, "holds text"),
    (("--metric", "bought", "--arm", "user"), 3, "distinct values"),
    (("--metric", "bought", "--arm", "note"), 3, "only hello"),
    (("--metric", "bought", "--control", "contrl"), 2, "did you mean 'control'?"),
    (("--metric", "bought", "--guardrail", "sessions"), 2, "sessions=0.02"),
    (("--metric", "bought", "--on", "user"), 2, "--outcomes"),
    (("--metric", "bought", "--bootstrap", "200"), 2, "--unit"),
    (("--metric", "bought", "--unit", "user", "--bootstrap", "5"), 2, "too few"),
    ((), 2, "--metric"),
])
def test_bad_input_is_told_with_what_to_do(
    ask: Any, users: Path, options: tuple[str, ...], code: int, says: str
) -> None:
    ended, found = ask("analyse", users, *options)
    assert ended == code
    assert says in f"{found['error']['message']} {found['error']['hint']}"


def test_the_page_on_experiments_shows_a_file_as_it_may_be_and_names_every_key() -> None:
    import re

    from gpupipe.config.source import parse
    from gpupipe.experiment.config import ExperimentConfig, MetricConfig, configured

    page = (Path(__file__).parents[2] / "docs" / "experiments.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    raw, origin = parse(block, "the block", Path())
    config = configured(raw, origin)
    assert [m.name for m in config.guardrails] == ["sessions", "latency"]
    for key in (*ExperimentConfig.model_fields, *MetricConfig.model_fields):
        assert re.search(rf"\b{key}\b", page), key
