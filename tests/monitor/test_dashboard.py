"""The dashboard: one page, without a network, read in a real browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pyarrow as pa
import pytest
from common.browser import dom
from monitor.test_alerts import day, rules

from gpupipe.cli.outcome import call
from gpupipe.monitor import dashboard, monitor, write_dashboard
from gpupipe.monitor.history import PICTURES

ODD = "</script><script>alert(1)</script>"


@pytest.fixture(scope="module")
def history(bundle, tmp_path_factory):
    """Seven days: none on day 2, few rows on day 3, a shift and odd text from day 5 on."""
    folder = tmp_path_factory.mktemp("dashboard")
    days = []
    for number in (0, 1, 3, 4, 5, 6):
        made = day(number, 0.6 if number > 4 else 0.0, rows=60 if number == 3 else 1440)
        if number > 4:
            odd = [ODD] * 200 + made["s"].to_pylist()[200:]
            made = made.set_column(made.schema.get_field_index("s"), "s", pa.array(odd))
        days.append(made)
    monitor(bundle, pa.concat_tables(days), history=folder / "h", rules=rules(slices=["k"]))
    write_dashboard(folder / "h", folder / "page.html")
    return folder


@pytest.fixture(scope="module")
def page(history):
    return (history / "page.html").read_text()


def cells(html: str, name: str) -> list[str]:
    """The states of a heat map's row; "" where there is no row of data."""
    row = re.search(rf'<tr><th scope="row"><bdi>{re.escape(name)}</bdi></th>(.*?)</tr>', html)
    assert row, name
    return [m[1] or "" for m in re.finditer(
        r'<td>(?:<a class="(\w+)"|<i class="absent")', row[1])]


def part(html: str, name: str) -> str:
    found = re.search(rf'<div class="card" id="{name}".*?>(.*?)</section>', html, re.DOTALL)
    assert found
    return found[1]


def test_it_shows_every_column_and_window_by_state(page):
    assert cells(page, "x") == ["ok", "ok", "", "insufficient", "ok", "alert", "alert"]
    assert cells(page, "z") == ["ok", "ok", "", "insufficient", "ok", "ok", "ok"]
    assert cells(page, "s")[-2:] == ["alert", "alert"]
    assert "7 windows of 1d, 2023-11-15 to 2023-11-21" in page
    assert "An alert fires." in page
    # Each state has a symbol of its own beside its colour.
    assert len(set(dashboard.SYMBOLS.values())) == 4
    for state, symbol in dashboard.SYMBOLS.items():
        assert f'<span class="sign {state}"><i aria-hidden="true">{symbol}</i>' in page


def test_it_needs_nothing_but_itself(page):
    elements = re.sub(r"(<script[^>]*>|<style>).*?(</script>|</style>)", "", page, flags=re.DOTALL)
    assert not re.search(r'(?:src|href)\s*=\s*"(?!#)', elements)
    assert "@import" not in page and "url(" not in page
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    script = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy


def test_text_of_the_data_stays_text(page):
    assert ODD not in page
    held = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    data = json.loads(held[1])
    at = [c["name"] for c in data["columns"]].index("s")
    assert data["cells"][at][-1]["u"] == {ODD: 200}


def test_a_click_shows_the_distribution_then_and_now(history, page):
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    names = [c["name"] for c in data["columns"]]
    shown = part(dom(history / "page.html", f"c{names.index('x')}w5"), "detail")
    assert "<bdi>x</bdi>" in shown and "2023-11-20, 1,440 rows" in shown
    assert f"training, {data['columns'][names.index('x')]['then']['rows']:,} rows" in shown
    then, now = (re.search(rf'class="{css}" d="([^"]*)"', shown)[1]
                 for css in ("bar then", "outline now"))
    assert then.count("Z") == len(data["columns"][names.index("x")]["then"]["then"])
    assert now.startswith("M") and "NaN" not in shown
    assert re.search(r">wasserstein</th>.*?sign alert", shown)
    text = part(dom(history / "page.html", f"c{names.index('s')}w6"), "detail")
    assert "Never seen in training" in text and "&lt;/script&gt;" in text
    assert text.count('class="bar now"') == text.count('class="bar then"') >= 4
    nothing = part(dom(history / "page.html", f"c{names.index('x')}w3"), "detail")
    assert "60 rows, and 100 are needed" in nothing and "sign insufficient" in nothing


def test_without_a_click_it_shows_what_is_worst_now_and_a_slice_tells_its_columns(history, page):
    opened = dom(history / "page.html")
    assert '<bdi>(prediction)</bdi></h3><span class="sign alert">' in part(opened, "detail")
    assert opened.count('aria-current="true"') == 1
    row = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])["slices"][0]
    told = part(dom(history / "page.html", "s0w6", size="400,900"), "part")
    assert f"<bdi>{row}</bdi>" in told


def test_the_verb_says_what_it_wrote_and_refuses_what_is_no_history(history, tmp_path, capfd):
    assert call(["dashboard", str(history / "h"), "--output", str(tmp_path / "d.html"), "--last",
                 "2", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert (told["windows"], told["state"]) == (2, "alert")
    assert len(cells((tmp_path / "d.html").read_text(), "x")) == 2
    assert call(["dashboard", str(tmp_path)]) == 3
    assert "gpupipe monitor MODEL DATA --history" in capfd.readouterr().err
    assert call(["dashboard", str(history / "h"), "--output", str(tmp_path / "no" / "d.html")]) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.html"]


def test_bars_are_shares_of_what_has_a_value(history):
    held = json.loads((history / "h" / PICTURES).read_text())
    for name, column in held["columns"].items():
        assert sum(column["then"]) == pytest.approx(1, abs=1e-3), name
    for window in held["windows"].values():
        for name, own in window.items():
            assert sum(own["now"]) == pytest.approx(1, abs=1e-3), name
            assert len(own["now"]) == len(held["columns"][name]["then"])


def test_quality_is_drawn_by_window_with_intervals_and_what_was_found(history, page):
    verdict = json.loads((history / "h" / "verdict.json").read_text())
    own = verdict["quality"]
    shown = re.search(r'<section id="quality".*?</section>', page, re.DOTALL)[0]
    assert shown.count("<figure") == min(4, len(own["metrics"])) + 1
    judged = [w for w in own["windows"].values() if w.get("scores")]
    first = re.search(r"<svg.*?</svg>", shown, re.DOTALL)[0]
    dots = sum(own["metrics"][0] in (w.get(side) or {}) for w in own["windows"].values()
               for side in ("scores", "estimated"))
    assert len(judged) >= 5 and first.count("<circle") == dots
    assert first.count('class="whisker') >= len(judged) - 1
    assert "out of fold" in first
    assert own["reliable"]["text"] in shown
    assert f"{own['labels']['labelled']:,} in all" in shown
    for one in own["changes"]:
        assert one["at"][:16].replace("T", " ") in shown
    for one in (own["worst_slices"] or {"slices": []})["slices"]:
        assert f"<bdi>{one['parts'][0]['column']}</bdi>" in shown
    assert all(f"<bdi>{s['slice']}</bdi>" in shown for s in judged[-1]["slices"])


def test_a_history_without_labels_has_no_quality(bundle, tmp_path):
    data = day(1).drop_columns(["y", "z"])  # without a column there is nothing to predict from
    monitor(bundle, data, history=tmp_path / "h", rules=rules())
    told = write_dashboard(tmp_path / "h", tmp_path / "page.html")
    assert told["windows"] == 1
    assert 'id="quality"' not in (tmp_path / "page.html").read_text()
