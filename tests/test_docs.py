"""The pages say what the code does: steps, parameters, defaults, YAML, commands, links, names."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import typer
from common.harness import BINARY, learned, make, random_sample, values_of
from pydantic_core import PydanticUndefined
from sklearn.metrics import recall_score
from sklearn.preprocessing import MaxAbsScaler

import gpupipe
from gpupipe.cli.verbs import app
from gpupipe.config import PipelineConfig, parse_config
from gpupipe.config.source import parse
from gpupipe.config.unsupervised import UNSUPERVISED
from gpupipe.estimator import Pipeline
from gpupipe.evaluate import METRICS, evaluate, metrics
from gpupipe.features import NATIVE_LEVELS, ONE_HOT_LEVELS, TEXT_SHARE, default_steps, steps_of
from gpupipe.models import MODELS, OneOf, linear, model_of, naive_bayes, neighbours, svm
from gpupipe.models.base import Needs
from gpupipe.select import METHODS
from gpupipe.steps import STEPS, Feature, categorical, numeric, structure
from gpupipe.steps.base import ROLES, select
from gpupipe.steps.graph import bind
from gpupipe.steps.profile import Profile, take_profile
from gpupipe.transforms import TRANSFORMS
from gpupipe.transforms import numeric as transforms
from gpupipe.workflow import RunResult

ROOT = Path(gpupipe.__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
STEPS_PAGE = (ROOT / "docs" / "steps.md").read_text()
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
each_step = pytest.mark.parametrize("name", STEPS)


def blocks(page: str, language: str) -> list[str]:
    """The fenced code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def section(page: str, title: str) -> str:
    """What stands under a heading, up to the next one."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", page, re.MULTILINE | re.DOTALL)
    assert found, f"there is no section {title!r}"
    return found[1]


def rows_of(text: str) -> list[list[str]]:
    """The body rows of the Markdown tables in a text."""
    rows = [[c.strip() for c in re.split(r"(?<!\\)\|", line.strip()[1:-1])]
            for line in text.splitlines() if line.startswith("|")]
    return [r for i, r in enumerate(rows)
            if not set("".join(r)) <= set("- ") and not (
                i + 1 < len(rows) and set("".join(rows[i + 1])) <= set("- "))]


def written(default: Any) -> str:
    """A default as the page writes it."""
    if default is None or default == ():
        return "none"
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, tuple):
        return f"`[{', '.join(default)}]`"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


# Steps ---------------------------------------------------------------------------------------


@each_step
def test_every_parameter_of_a_step_is_documented_with_its_default(name):
    found = [(r[0].strip("`"), r[1]) for r in rows_of(section(STEPS_PAGE, f"`{name}`"))]
    expected = {k: written(f.default) for k, f in STEPS[name].model_fields.items()}
    assert dict(found) == expected
    assert len(found) == len(expected)


def test_the_page_has_no_step_that_is_not_there():
    titles = re.findall(r"^### `(\w+)`", STEPS_PAGE, re.MULTILINE)
    assert sorted(titles) == sorted(STEPS)
    overview = [r[0] for r in rows_of(STEPS_PAGE) if "](#" in r[0]]
    assert overview == [f"[`{n}`](#{n})" for n in titles]


@each_step
def test_the_choices_of_a_parameter_are_named(name):
    text = section(STEPS_PAGE, f"`{name}`")
    schema = STEPS[name].model_json_schema()
    for parameter in schema["properties"].values():
        options = parameter.get("enum") or parameter.get("items", {}).get("enum") or []
        assert all(f"`{option}`" in text for option in options)


@each_step
def test_the_scans_that_the_page_names_are_those_that_a_step_takes(name):
    said = next(r[3] for r in rows_of(STEPS_PAGE) if r[0] == f"[`{name}`](#{name})")
    variants: dict[str, list[dict[str, Any]]] = {
        "impute": [{"strategy": s} for s in ("median", "mean", "most_frequent")]
        + [{"strategy": "constant", "fill_value": 1}],
        "scale": [{"method": m} for m in ("standard", "min_max", "robust")],
        "clip": [{"lower": 0.1}, {"by": "value", "lower": 0.1}],
        "bin": [{}, {"strategy": "uniform"}], "cast": [{"to": "string"}],
    }
    looks = sorted({make(name, **v).looks for v in variants.get(name, [{}])})
    assert said == {
        (0,): "nothing to learn", (1,): "1 scan", (0, 1, 2): "0 to 2 scans",
        (1, 2): "1 or 2 scans", (0, 2): "0 or 2 scans",
    }[tuple(looks)]


@each_step
def test_the_example_of_a_step_is_a_step_of_that_name(name):
    (example,) = blocks(section(STEPS_PAGE, f"`{name}`"), "yaml")
    steps = steps_of(config_of(example))
    assert steps is not None
    assert [s.name for s in steps] == [name]


def test_limits_and_periods_on_the_page_are_those_of_the_code():
    assert f"up to {NATIVE_LEVELS}: `ordinal`" in STEPS_PAGE
    assert f"up to {ONE_HOT_LEVELS}: `one_hot`" in STEPS_PAGE
    assert TEXT_SHARE == 0.5
    assert f"(and more than {NATIVE_LEVELS}, or {ONE_HOT_LEVELS})" in STEPS_PAGE
    said = section(STEPS_PAGE, "`datetime`").partition("of period T")[2]
    for part, period in structure.PERIODS.items():
        assert re.search(rf"\b{part}( and \w+)?\s{period}\b", said), part


def test_the_selectors_on_the_page_are_all_that_there_are():
    by_kind = {r[0]: r[1] for r in rows_of(section(STEPS_PAGE, "Selecting columns"))}
    for role, dtypes in ROLES.items():
        assert f"`{role}`" in by_kind["a role"]
        if role != "all":
            assert f"`{role}` ({', '.join(dtypes)})" in by_kind["a role"]
    assert re.findall(r"`(\w+)`", by_kind["a type"]) != []
    assert set(re.findall(r"`(\w+)`", by_kind["a type"])) == set(ROLES["all"])
    features = [Feature("x1", "float64"), Feature("item_a", "string"), Feature("all", "bool")]
    assert [f.name for f in select("all", features)] == ["all"]
    assert [f.name for f in select("[xyz]1", features)] == ["x1"]
    assert [f.name for f in select("item_?", features)] == ["item_a"]
    assert select("datetime", features) == []


@pytest.fixture(scope="module")
def profiled() -> tuple[list[Feature], Profile]:
    sample = random_sample(2000, seed=3)
    rowed = sample.rowed()
    return sample.features, take_profile(rowed.reader, target=None)


NEEDS = get_args(Needs)


def test_the_defaults_on_the_page_are_those_of_the_code(profiled):
    features, profile = profiled
    rows = rows_of(section(STEPS_PAGE, "Without `features`"))
    for needs, column in zip(NEEDS, (1, 2, 3), strict=True):
        steps = {s.name for s in default_steps(features, profile, needs)}
        told = {n for r in rows for n in re.findall(r"`(\w+)`", r[column])} & set(STEPS)
        told |= {"drop"} if any("dropped" in r[column] for r in rows) else set()
        assert steps <= told
    header = next(x for x in STEPS_PAGE.splitlines() if x.startswith("| columns | "))
    supervised = set(MODELS) - set(UNSUPERVISED)
    for needs, column in zip(NEEDS, header.split("|")[2:5], strict=True):
        told = re.findall(r"`(\w+)`", column)
        assert sorted(told) == sorted(k for k in supervised if MODELS[k].needs == needs)
    assert all(MODELS[kind].needs == "numbers" for kind in UNSUPERVISED)
    datetime = next(s for s in default_steps(features, profile, "numbers") if s.name == "datetime")
    assert f"`parts: [{', '.join(datetime.parts)}]`" in STEPS_PAGE


# Models --------------------------------------------------------------------------------------


MODELS_PAGE = (ROOT / "docs" / "models.md").read_text()
DEFAULTS = {"linear": linear.DEFAULTS, "neighbours": neighbours.DEFAULTS, "svm": svm.DEFAULTS,
            "naive_bayes": naive_bayes.DEFAULTS}


@pytest.mark.parametrize("kind", DEFAULTS)
def test_every_parameter_of_a_family_of_numbers_is_documented_with_its_default(kind):
    rows = rows_of(section(MODELS_PAGE, f"`{kind}`"))
    assert {r[0].strip("`"): r[1] for r in rows} == {
        name: written(value) for name, value in DEFAULTS[kind].items()}
    assert len(rows) == len(DEFAULTS[kind])


@pytest.mark.parametrize("kind", DEFAULTS)
def test_the_ranges_of_a_search_on_the_page_are_those_of_the_code(kind):
    text = section(MODELS_PAGE, f"`{kind}`").partition("A search looks at ")[2]
    told = re.findall(r"`(\w+)`\s\[([^\]]*)\]", text.partition("\n\n")[0])
    expected = []
    for name, where in MODELS[kind].space.items():
        values = where.values if isinstance(where, OneOf) else (where.low, where.high)
        expected.append((name, ", ".join(str(v) for v in values)))
    assert sorted((n, " ".join(v.split())) for n, v in told) == sorted(expected)


@pytest.mark.parametrize("kind", DEFAULTS)
def test_the_example_of_a_family_is_one(kind):
    for example in blocks(section(MODELS_PAGE, f"`{kind}`"), "yaml"):
        model = config_of(example).model
        assert model.kind == kind
        model_of(kind, model.params)


# YAML ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", UNSUPERVISED)
def test_a_family_without_a_target_has_its_section_with_all_parameters(kind):
    page = (ROOT / "docs" / "unsupervised.md").read_text()
    heading = next(h for h in re.findall(r"^### (.*)$", page, re.MULTILINE) if f"`{kind}`" in h)
    told = {r[0].strip("`"): r[1] for r in rows_of(section(page, heading))}
    known = model_of(kind, {}).params
    assert set(known) <= set(told)
    for name, default in known.items():
        if default is not None:
            assert f"`{str(default).lower() if isinstance(default, bool) else default}`" in told[
                name]


@pytest.mark.parametrize("kind", [k for k in MODELS if k not in UNSUPERVISED])
def test_a_family_has_its_section_with_all_that_a_search_tries(kind):
    text = section(MODELS_PAGE, f"`{kind}`")
    assert all(f"`{name}`" in text for name in MODELS[kind].space)
    for task in MODELS[kind].tasks:
        assert task in text


def config_of(text: str) -> PipelineConfig:
    """The pipeline file that a block is, or of which it shows a part."""
    if text.startswith("- "):
        text = "features:\n" + text
    sections, _ = parse(text, "the block", ROOT)
    target = {} if sections.get("model", {}).get("kind") in UNSUPERVISED else {"target": "y"}
    data = {"source": "t.csv", **target, **sections.get("data", {})}
    return parse_config({**sections, "data": data})


YAML = [pytest.param(text, id=f"{page.name}-{i}")
        # The blocks of those two are held to in tests/serve and tests/experiment.
        for page in PAGES if page.name not in ("serving.md", "experiments.md")
        for i, text in enumerate(blocks(page.read_text(), "yaml"))]


@pytest.mark.parametrize("text", YAML)
def test_every_yaml_block_is_a_pipeline_file_or_a_part_of_one(text):
    config = config_of(text)
    for step in steps_of(config) or ():
        assert step.name in STEPS
    assert config.model.kind in MODELS
    for name in config.evaluate.metrics or ():
        assert any(name == known for _, known in METRICS)


# Commands, links, names ----------------------------------------------------------------------


COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def command_lines(page: str) -> list[str]:
    fenced = "\n".join(blocks(page, "sh"))
    indented = "\n".join(re.findall(r"^    (gpupipe .*)$", page, re.MULTILINE))
    inline = "\n".join(re.findall(r"`(gpupipe [a-z][^`]*)`", page))
    lines = "\n".join([fenced, indented, inline]).replace("&&", "\n").splitlines()
    stripped = [re.sub(r"^\s*(\.venv/bin/)?", "", line) for line in lines]
    return [line for line in stripped if line.startswith("gpupipe ")]


@each_page
def test_every_command_on_a_page_exists_and_takes_its_options(page):
    for line in command_lines(page.read_text()):
        words = shlex.split(line.partition(">")[0], comments=True)[1:]
        if words[0] == "VERB":
            continue
        assert words[0] in COMMANDS, line
        command = COMMANDS[words[0]]
        if hasattr(command, "commands") and len(words) > 1:  # a group: `gpupipe models list`
            assert words[1] in command.commands, line
            command = command.commands[words[1]]
        options = {o for p in command.params for o in p.opts} | {"--help"}
        assert {w for w in words if w.startswith("--")} <= options, line


def test_the_command_page_and_the_readme_name_every_command():
    assert set(COMMANDS) <= {line.split()[1] for line in
                             command_lines((ROOT / "docs" / "cli.md").read_text())}
    readme = {line.split()[1] for line in command_lines((ROOT / "README.md").read_text())}
    assert set(COMMANDS) - readme <= {"schema", "fingerprint"}


def anchor(title: str) -> str:
    """GitHub's id of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


@each_page
def test_every_relative_link_resolves(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), target
        if fragment:
            titles = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert fragment in {anchor(t) for t in titles}, target


@each_page
def test_the_names_in_python_snippets_exist(page):
    for text in blocks(page.read_text(), "python"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gpupipe"):
                module = __import__(node.module, fromlist=["x"])
                assert all(hasattr(module, a.name) for a in node.names)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                known = {"gpupipe": gpupipe, "bundle": gpupipe.Bundle, "model": Pipeline}
                owner = known.get(node.value.id)
                assert owner is None or hasattr(owner, node.attr), ast.unparse(node)
                if node.value.id == "result":
                    owned = {*RunResult.__dataclass_fields__, *vars(RunResult)}
                    assert node.attr in owned, ast.unparse(node)
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Pipeline"):
                names = {k.arg for k in node.keywords}
                assert names <= set(Pipeline().get_params()), ast.unparse(node)


# What the design page tells a contributor to write ---------------------------------------------


DESIGN = (ROOT / "docs" / "design.md").read_text()


def test_the_step_of_the_design_page_works_as_written():
    (text,) = blocks(section(DESIGN, "Adding a step"), "python")
    names = {**vars(transforms), **vars(numeric), **vars(categorical)}
    try:
        exec(text, names)
        sample = random_sample(300, seed=5)
        graph, fitted, _ = learned(sample, [make("max_scale", columns=["f"])], train=(0, 1, 2))
        train = sample.training((0, 1, 2)).table["f"].to_numpy()
        train = np.where(np.isfinite(train), train, np.nan)[:, None]
        whole = sample.table["f"].to_numpy()
        whole = np.where(np.isfinite(whole), whole, np.nan)[:, None]
        expected = MaxAbsScaler().fit(train).transform(whole)[:, 0]
        found = values_of(graph, fitted, sample.table)["f"]
        np.testing.assert_array_equal(found, expected)
        assert bind(sample.features, [make("max_scale")], BINARY)
    finally:
        STEPS.pop("max_scale", None)
        TRANSFORMS.pop("max_scale", None)


def test_the_metric_of_the_design_page_equals_scikit_learns():
    (text,) = blocks(section(DESIGN, "Adding a metric"), "python")
    try:
        exec(text, dict(vars(metrics)))
        rng = np.random.default_rng(0)
        y, p = rng.integers(0, 2, 500), rng.random(500)
        scores = evaluate("binary", y, p, metrics=["specificity"], resamples=50)
        assert scores["specificity"].value == pytest.approx(recall_score(1 - y, p <= 0.5))
    finally:
        METRICS.pop(("binary", "specificity"), None)


def test_the_model_of_the_design_page_is_the_one_in_the_code():
    (text,) = blocks(section(DESIGN, "Adding a model"), "python")
    (told,) = ast.parse(text).body
    own = ast.parse((ROOT / "gpupipe" / "models" / "constant.py").read_text()).body
    real = next(n for n in own if isinstance(n, ast.ClassDef) and n.name == "Constant")
    assert isinstance(told, ast.ClassDef)

    def signatures(cls: ast.ClassDef) -> dict[str, str]:
        return {n.name: ast.unparse(n.args) for n in cls.body if isinstance(n, ast.FunctionDef)}

    assert signatures(told) == signatures(real)


def test_the_map_of_the_design_page_has_every_room_and_no_other():
    rooms = {n for r in rows_of(section(DESIGN, "The map")) for n in re.findall(r"`(\w+)`", r[0])}
    there = {p.stem for p in (ROOT / "gpupipe").iterdir()
             if (p.suffix == ".py" or (p / "__init__.py").exists()) and p.stem != "__init__"}
    assert rooms == there


@each_page
def test_every_module_that_a_page_names_is_there(page):
    for name in re.findall(r"`((?:gpupipe/|tests/)?[a-z_]+/[a-z_]+\.py)`", page.read_text()):
        assert (ROOT / name).exists() or (ROOT / "gpupipe" / name).exists(), name


# Selection -------------------------------------------------------------------------------------


SELECTION_PAGE = (ROOT / "docs" / "selection.md").read_text()


@pytest.mark.parametrize("name", METHODS)
def test_every_parameter_of_a_method_of_selection_is_documented(name):
    found = [(r[0].strip("`"), r[1]) for r in rows_of(section(SELECTION_PAGE, f"`{name}`"))]
    assert found == [(k, written(f.default)) for k, f in METHODS[name].model_fields.items()]
    choices = METHODS[name].model_json_schema()["properties"].values()
    assert all(f"`{option}`" in section(SELECTION_PAGE, f"`{name}`")
               for parameter in choices for option in parameter.get("enum") or [])


def test_the_page_of_selection_has_every_method_and_no_other():
    titles = re.findall(r"^### `(\w+)`", SELECTION_PAGE, re.MULTILINE)
    assert sorted(titles) == sorted(METHODS)
    assert [r[0] for r in rows_of(SELECTION_PAGE) if "](#" in r[0]] == [f"[`{n}`](#{n})"
                                                                        for n in titles]
    told = section((ROOT / "docs" / "pipeline-file.md").read_text(),
                   "`select`: which features the model gets")
    assert all(f"`{name}`" in told for name in METHODS)
