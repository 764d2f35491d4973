"""The certificate as a page for people."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gpupipe.evaluate.page import Card, Mark, Page, Section, Table, render_page
from gpupipe.parity.certificate import Certificate, Compared
from gpupipe.parity.compare import ulps_text

SHOWN_DIFFERENCES = 200
FOLDED = 12
"""Tables of more rows than this open at a click."""
EQUAL = Mark("equal", True)


def render_certificate(certificate: Certificate) -> str:
    """The HTML page."""
    about = certificate.about
    left, right = about["left"], about["right"]
    holds = certificate.holds
    return render_page(Page(
        "parity certificate", about["name"], about["created"],
        f"The same pipeline on {_side(left)} and on {_side(right)}, from nothing, compared step "
        "by step.", Mark("parity holds" if holds else "parity does not hold", holds),
        [Card(f"{v.name} · {v.title}", Mark("holds" if v.holds else "does not hold", v.holds),
              _sentence(v.promise), _sentence(v.found)) for v in certificate.levels],
        [("rows", f"{about['data']['rows']:,}"), ("columns", f"{about['data']['columns']:,}"),
         (left["name"], f"{left['seconds']:.1f} s"), (right["name"], f"{right['seconds']:.1f} s"),
         ("seed", str(about["seed"]))],
        [
            Section("learned", "Learned", [
                *_differences("Differences", (*certificate.rows, *certificate.states,
                                              *certificate.params)),
                Table("Rows and their split", ("what", "verdict"),
                      [(c.what, _mark(c)) for c in certificate.rows]),
                _steps(certificate.params), _states(certificate.states),
            ], "Equal to the bit: the split and target of every row, what every step learned for "
               "the final model and in each fold, and the profile of every column."),
            Section("made", "Made", [
                *_differences("Differences", (*certificate.scores, *certificate.features)),
                _features([*certificate.scores, *certificate.features]),
            ], f"On {about['sampled_rows']:,} rows, chosen by the hash of their key. The scores "
               "are those of the left side's model, computed on each side from its own features."),
            Section("trained", "Trained", [_metrics(certificate)],
                    "Each side's own model. Training itself is not the same to the bit on two "
                    "devices; the deviation over seeds says what a difference means."),
            Section("provenance", "Provenance", [_facts(about)]),
        ],
    ))


def _side(side: Mapping[str, Any]) -> str:
    engine = side["engine"]
    workers = engine["workers"]
    return (f"{side['name']} (device {engine['device']}, engine {engine['kind']}, {workers} "
            f"worker{'' if workers == 1 else 's'})")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _mark(compared: Compared) -> Mark:
    return EQUAL if compared.equal else Mark(ulps_text(compared.ulps), False)


def _differences(title: str, compared: Iterable[Compared]) -> list[Table]:
    """What is not equal; no table where all is."""
    found = [c for c in compared if not c.equal]
    if not found:
        return []
    rows = [(c.what, c.where, _mark(c), c.found) for c in found[:SHOWN_DIFFERENCES]]
    more = len(found) - len(rows)
    return [Table(title, ("what", "where", "distance", "found"), rows,
                  f"and {more:,} more, in certificate.json" if more else "")]


def _steps(params: Sequence[Compared]) -> Table:
    """One row a step and column: in how many views it learned the same."""
    views: dict[tuple[str, str], list[Compared]] = defaultdict(list)
    for c in params:
        views[c.what, c.where.partition(", ")[0]].append(c)
    rows = []
    for (what, model), found in views.items():
        equal, ulps = sum(c.equal for c in found), [c.ulps for c in found if not c.equal]
        worst = None if None in ulps else max((u for u in ulps if u is not None), default=0)
        rows.append((what, model, f"{equal} of {len(found)}",
                     EQUAL if equal == len(found) else Mark(ulps_text(worst), False)))
    return Table(f"Steps: {len(rows)} on columns", ("step and column", "features of", "equal views",
                                                    "verdict"), rows, folded=len(rows) > FOLDED)


def _states(states: Sequence[Compared]) -> Table:
    rows = [(c.what, _mark(c)) for c in states]
    return Table(f"Profile: {len(rows)} statistics of columns", ("statistic", "verdict"), rows,
                 folded=len(rows) > FOLDED)


def _features(compared: Sequence[Compared]) -> Table:
    rows = [(c.what, c.where, _mark(c)) for c in compared]
    return Table(f"Scores and features: {len(rows)} compared", ("what", "of", "distance"), rows,
                 folded=len(rows) > FOLDED)


def _metrics(certificate: Certificate) -> Table:
    rows = [
        (m.name, m.left, m.right, m.difference, m.deviation,
         Mark("holds" if m.holds else "apart", m.holds))
        for m in certificate.metrics
    ]
    sides = certificate.about["left"]["name"], certificate.about["right"]["name"]
    return Table("Metrics", ("metric", *sides, "difference", "deviation", "verdict"), rows,
                 f"The deviation is that of {certificate.about['left']['name']}'s over "
                 f"{len(certificate.metrics[0].seeds)} seeds." if certificate.metrics else "")


def _facts(about: Mapping[str, Any]) -> Table:
    """Data, hardware, versions and engines, a fact a row."""
    hardware, data = about["hardware"], about["data"]
    rows: list[tuple[Any, ...]] = [
        ("data", data["source"]), ("data's fingerprint", data["fingerprint"]),
        ("processor", f"{hardware['processor']}, {hardware['cores']} cores"),
        ("memory", f"{hardware['memory_bytes'] / 2**30:.1f} GiB"),
        ("GPU", "; ".join(hardware["gpus"]) or "none"), ("platform", hardware["platform"]),
        ("versions", ", ".join(f"{k} {v}" for k, v in about["versions"].items())),
    ]
    for name in ("left", "right"):
        engine = about[name]["engine"]
        rows.append((f"engine of {about[name]['name']}", ", ".join(
            [f"{engine['kind']} on {engine['device']} ({engine['why']})",
             f"{engine['workers']} workers", f"batches of {engine['batch_rows']:,} rows",
             *engine["notes"]])))
        rows.append((f"learned by {about[name]['name']}", about["fingerprints"][name]["all"]))
    return Table("Where this comes from", ("fact", ""), rows)
