"""The report is one safe, whole page for any model, any data and any part of the data."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
import sample_report

from gpupipe.evaluate.report import SHOWN_COLUMNS, Report, render_report
from gpupipe.evaluate.svg import Plot, short, ticks
from gpupipe.evaluate.text import name_tag, number, percent, score, seconds

VOID = {"meta", "br", "img", "link", "input", "hr"}
HOSTILE = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "x" * 3000,
    "עמודה مع نص", "💎👩‍👩‍👧" * 9, "", "   ", "a\x00b\x1bc", "\u202eevil gnp.exe",
    "{{ 7*7 }}{% raw %}", "</style><b>", "\ud800lone", "' style='background:url(//x)",
]


class Page(HTMLParser):
    """Fails where tags do not nest; keeps elements and text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, (tag, self.open, self.getpos())

    def handle_data(self, data):
        self.text.append(data)

    def named(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def assert_safe(html: str) -> Page:
    page = Page(html)
    assert not {"script", "img", "iframe", "object", "link", "form", "base"} & {
        tag for tag, _ in page.tags}
    for _, attrs in page.tags:
        assert not [name for name in attrs if name.startswith("on") or name in ("src", "srcset")]
        assert (attrs.get("href") or "#").startswith("#")
        assert "url(" not in (attrs.get("style") or "")
    [policy] = [a for a in page.named("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy["content"].startswith("default-src 'none'; style-src 'unsafe-inline'")
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        ElementTree.fromstring(svg)
    html.encode("utf-8")
    assert not re.search("[\x00-\x08\x0b\x0e-\x1f]", html)
    ids = [a["id"] for _, a in page.tags if a.get("id")]
    assert sorted(ids) == sorted(set(ids))
    targets = {a["href"][1:] for a in page.named("a")}
    assert targets <= set(ids)
    return page


@pytest.fixture(scope="module")
def reports(shared_data) -> dict[str, Report]:
    """Really trained, quickly, and through JSON as a run would keep them."""
    made = {make.__name__: make(shared_data, rounds=15, resamples=60, rows=9_000)
            for make in (sample_report.adult, sample_report.cut, sample_report.price)}
    return json.loads(json.dumps(made, allow_nan=False))


@pytest.mark.parametrize("name", ["adult", "cut", "price"])
def test_a_real_models_report_is_one_safe_page_with_every_section(reports, name):
    report = reports[name]
    page = assert_safe(render_report(report))
    ids = {a.get("id") for _, a in page.tags}
    assert {"data", "features", "model", "quality", "slices", "plan", "provenance"} <= ids
    text = " ".join(page.text)
    lead = report["metrics"]["holdout"]["model"][report["headline"]]
    assert f"{lead['value']:.4f}" in text
    assert f"{lead['low']:.4f} – {lead['high']:.4f}" in text
    for column in report["profile"]:
        assert column["name"] in text
    for _, attrs in page.tags:
        if attrs.get("role") == "img":
            assert attrs["aria-label"]
    assert all(attrs.get("scope") for attrs in page.named("th"))


def test_any_section_may_be_missing_or_none(reports):
    for name in reports:
        for key in reports[name]:
            if key in ("name", "task"):
                continue
            assert_safe(render_report({k: v for k, v in reports[name].items() if k != key}))
            if name == "adult":
                assert_safe(render_report({**reports[name], key: None}))
    page = assert_safe(render_report({"name": "alone", "task": "binary"}))
    assert page.named("section") == []


def test_any_detail_may_be_missing(reports):
    """Every key of every dict one level down, left out one at a time."""
    report = reports["adult"]
    for key in ("source", "split", "plan", "quarantine", "model", "metrics", "target_profile"):
        for inner in report[key]:
            changed = copy.deepcopy(report)
            del changed[key][inner]
            assert_safe(render_report(changed))
    changed = copy.deepcopy(report)
    changed["profile"] = [{"name": "bare"}, {"name": "empty", "missing": 1.0, "distinct": 0,
                          "min": None, "max": None, "histogram": None, "top": []}]
    changed["timings"] = [{"stage": "train", "seconds": 0.0}]
    assert_safe(render_report(changed))


def test_hostile_names_and_values_stay_text(reports):
    def poison(value, at=0):
        if isinstance(value, dict):
            return {k: poison(v, at + i) for i, (k, v) in enumerate(value.items())}
        if isinstance(value, list):
            return [poison(v, at + i) for i, v in enumerate(value)]
        return HOSTILE[at % len(HOSTILE)] if isinstance(value, str) else value

    for shift in range(len(HOSTILE)):
        report = reports["cut"]
        hostile = {k: v if k in ("task", "headline") else poison(v, shift)
                   for k, v in report.items()}
        hostile["slices"] = [
            {"column": HOSTILE[shift], "rows": [{**r, "level": HOSTILE[(shift + i) % 13]}
                                                for i, r in enumerate(s["rows"])]}
            for s in report["slices"]]
        hostile["model"]["params"] = dict.fromkeys(HOSTILE[:3], HOSTILE[shift])
        html = render_report(hostile)
        assert_safe(html)
        assert "x" * 401 not in html  # cut to fit; at most 400 in a title
        assert "{{ 7*7 }}" in html


def test_a_thousand_columns_make_a_small_page_with_the_important_ones_first(reports):
    report = copy.deepcopy(reports["adult"])
    base = report["profile"]
    report["profile"] = [{**base[i % 14], "name": f"column {i}"} for i in range(1000)]
    report["importances"] = [{"feature": f"column {i}_made", "gain": 1.0, "share": i / 499500}
                             for i in range(1000)]
    report["features"] = [{"step": "s", "columns_in": [c["name"] for c in report["profile"]],
                           "columns_out": []}]
    html = render_report(report)
    page = assert_safe(html)
    assert len(html.encode()) < 1_000_000
    cards = re.findall(r"<article.*?</article>", html, re.DOTALL)
    assert len(cards) == SHOWN_COLUMNS + 1  # and the target's
    assert "column 999" in cards[1]
    assert "940 more columns" in " ".join(page.text)


def test_an_undefined_metric_is_shown_as_such(reports):
    report = copy.deepcopy(reports["adult"])
    note = "undefined: all rows are of one class"
    report["metrics"]["holdout"]["model"]["roc_auc"] = {"value": None, "low": None, "high": None,
                                                        "note": note}
    html = render_report(report)
    assert_safe(html)
    assert f'title="{note}">undefined' in html


def test_without_a_holdout_the_out_of_fold_scores_lead(reports):
    report = copy.deepcopy(reports["adult"])
    del report["metrics"]["holdout"]
    assert "ROC AUC on the out-of-fold rows" in render_report(report)


def test_a_far_baseline_is_off_the_scale_so_that_intervals_can_be_seen():
    def scored(value):
        return {"roc_auc": {"value": value, "low": value - 0.004, "high": value + 0.004}}

    html = render_report({"name": "n", "task": "binary", "metrics": {"holdout": {
        "model": scored(0.93), "baselines": {"linear": scored(0.91), "constant": scored(0.5)}}}})
    assert html.count('class="off left"') == 2  # the header's and the table's
    widths = [float(w) for w in re.findall(r"width:([\d.]+)%", html)]
    assert max(widths) > 15


def test_many_classes_make_a_numbered_confusion_table():
    classes = [f"<class {i}>" for i in range(23)]
    counts = [[float(i == j) * 10 for j in range(23)] for i in range(23)]
    html = render_report({"name": "n", "task": "multiclass", "classes": classes,
                          "curves": {"confusion": {"classes": classes, "counts": counts}}})
    page = assert_safe(html)
    assert len(page.named("td")) == 23 * 23
    assert {"scope": "col", "title": "<class 22>"} in page.named("th")


def test_numbers_are_written_for_people():
    assert [number(v) for v in (3, 1234567, 0.123456, 12345.6, -2.5, 1e-7, 0.0)] == [
        "3", "1,234,567", "0.1235", "12,346", "−2.5", "1.00e-07", "0"]
    assert [score(v) for v in (0.93186, 12.345, 523.14, 0.00001, -0.5, -4e-16)] == [
        "0.9319", "12.35", "523.1", "1.000e-05", "−0.5000", "0.0000"]
    assert [percent(v) for v in (0.5, 0.0001, 0.0)] == ["50.0%", "<0.1%", "0.0%"]
    assert [seconds(v) for v in (0.0312, 12.34, 605)] == ["31 ms", "12.3 s", "10 min 5 s"]
    assert [short(v) for v in (0.25, 1500, 20_000, 3.5e6, -1e9, 0)] == [
        "0.25", "1,500", "20k", "3.5M", "−1B", "0"]
    assert number(None) == score(None) == percent(None)
    assert str(name_tag("<b>")) == "<bdi>&lt;b&gt;</bdi>"


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.93, 0.94), (-3e9, 5e9), (1e-9, 3e-9), (5, 5)])
def test_ticks_are_few_round_and_inside(low, high):
    found = ticks(low, high)
    assert 1 <= len(found) <= 11
    assert all(low - 1e-12 <= t <= high + 1e-12 for t in found)


def test_a_plot_of_nothing_is_still_a_plot():
    plot = Plot((2, 2), (0, 0), title="<empty>", x_label="a & b")
    plot.cells([[0, 0]], "s0")
    plot.bars([0, 1], [0], "s0")
    root = ElementTree.fromstring(plot.render())
    assert root.attrib["aria-label"] == "<empty>"
