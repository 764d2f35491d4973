"""The verdict as one page, for people who decide and need not know the statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpupipe.checkpoints import temporary_name
from gpupipe.evaluate.report import environment
from gpupipe.evaluate.text import CONTROL
from gpupipe.experiment.judge import INSUFFICIENT
from gpupipe.experiment.verdict import percent, signed

GOOD = {"better": True, "no effect that matters": None, "no difference shown": None,
        "insufficient data": None, "too early": None, "guardrail open": None}
"""Verdicts that are good, or neither; the others are bad."""
WORDS = {
    "blocked": "No verdict", "insufficient data": "Not enough data", "too early": "Too early",
    "better": "Ship it", "worse": "Do not ship", "guardrail broken": "Do not ship",
    "guardrail open": "Not yet", "no effect that matters": "No effect that matters",
    "no difference shown": "No difference shown",
}
GUARDS = {"holds": ("within margin", True), "broken": ("broken", False),
          "not shown": ("open", None)}


def write_page(found: Mapping[str, Any], path: Path) -> None:
    """Write the page, whole or not at all."""
    temporary = temporary_name(Path(path).absolute())
    temporary.write_text(render(found), encoding="utf-8")
    temporary.replace(path)


def render(found: Mapping[str, Any]) -> str:
    """The HTML of what `analyse.analyse` found."""
    html = environment().get_template("experiment.html").render(
        title=f"{found['name']} experiment", f=found, blocked=any(
            v["state"] == "blocked" for v in found["verdicts"].values()),
        created=time_of(found["created"]),
        level=f"{100 * (1 - found['alpha']):g}%",
        verdicts=[_verdict(found, arm, one) for arm, one in found["verdicts"].items()],
        trust=_trust(found), metrics=_metrics(found), slices=[_slice(s) for s in found["slices"]],
        how=_how(found), asked=_asked(found),
    )
    return CONTROL.sub("�", html).encode("utf-8", "replace").decode("utf-8")


def time_of(text: object) -> str:
    """A moment as people write it: 2026-11-30 12:00 UTC."""
    return str(text).replace("T", " ")[:16] + " UTC"


def _verdict(found: Mapping[str, Any], arm: str, one: Mapping[str, Any]) -> dict[str, Any]:
    good = GOOD.get(one["state"], False)
    headline = next(
        (e for m in found["metrics"] if m["role"] == "primary" for e in m["effects"]
         if e["arm"] == arm and e["state"] != INSUFFICIENT and one["state"] != "blocked"), None)
    metric = next(m for m in found["metrics"] if m["role"] == "primary")
    return {"arm": arm, "word": WORDS[one["state"]], "tone": _tone(good), "said": one,
            "metric": metric["name"], "effect": _change(headline) if headline else None}


def _tone(good: bool | None) -> str:
    return {True: "good", False: "bad", None: ""}[good]


def _change(effect: Mapping[str, Any]) -> dict[str, Any] | None:
    """An effect as text: relative where the control is not 0."""
    shown = effect.get("relative") or effect.get("difference")
    if shown is None:
        return None
    write = percent if effect.get("relative") else signed
    return {"value": write(shown["value"]), "low": write(shown["low"]),
            "high": write(shown["high"]), "relative": bool(effect.get("relative"))}


def _asked(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The plan in a few facts."""
    primary = [m["name"] for m in found["metrics"] if m["role"] == "primary"]
    facts = [("decides", ", ".join(primary)),
             ("against", found["control"])]
    if len(found["arms"]) > 2:
        facts.append(("arms", str(len(found["arms"]))))
    guards = [m["name"] for m in found["metrics"] if m["role"] == "guardrail"]
    if guards:
        facts.append(("must not get worse", ", ".join(guards)))
    facts.append(("looked at", "at any time" if found["look"] == "sequential" else "once"))
    if found["horizon"]["units"]:
        facts.append(("planned units", f"{found['horizon']['units']:,}"))
    facts.append(("units", f"{found['units']:,}"))
    return facts


def _trust(found: Mapping[str, Any]) -> list[dict[str, str]]:
    """What was checked before anything was believed: a title, a mark and a sentence."""
    ratio, plan = found["srm"], found["plan"]
    sizes = ", ".join(f"{a['units']:,} in {a['name']} ({a['share']:.2%}, planned "
                      f"{a['planned']:.2%})" for a in found["arms"])
    chance = {
        True: f"Such a gap comes about by chance (p = {ratio['p']:.2g}).",
        False: f"Chance alone makes such a gap with p = {ratio['p']:.2g}, and below "
               f"{ratio['alpha']:g} something else is at work.",
        None: "With so few units that is not tested.",
    }[ratio["ok"]]
    fits = {True: "as planned", None: "too few to tell",
            False: "acknowledged" if ratio["acknowledged"] else "not as planned"}[ratio["ok"]]
    cards = [{
        "title": "Were units dealt out as planned?", "mark": fits,
        "tone": _tone(ratio["ok"]),
        "text": f"{sizes}. {chance}",
    }]
    said = {
        "registered": ("unchanged", True, f"Registered {time_of(plan['registered'])}, hash "
                       f"{str(plan['hash'])[:12]}, and not changed since."),
        "changed": ("changed", False, f"Registered as {str(plan['hash'])[:12]}, and now "
                    f"{str(plan['found'])[:12]}: what was to be believed was changed afterwards."),
        "none": ("exploration", None, "No plan was registered. With metrics chosen after the fact "
                 "something is always found: confirm it with a new experiment."),
    }[plan["status"]]
    cards.append({"title": "Was it planned beforehand?", "mark": said[0], "tone": _tone(said[1]),
                  "text": said[2]})
    rows = found["rows"]
    left = [f"{n:,} rows left out ({why})" for why, n in rows.items() if why != "rows"]
    doubts = [*found["remarks"], *left]
    cards.append({
        "title": "Are the data sound?", "tone": "" if doubts else "good",
        "mark": "worth a look" if doubts else "nothing found",
        "text": ". ".join(t[:1].upper() + t[1:] for t in (
            f"{rows.get('rows', 0):,} rows", *doubts, *found["notes"])) + ".",
    })
    return cards


def _metrics(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each role's metrics, a row an arm, with its interval on the role's own scale."""
    groups = []
    titles = {"primary": ("What decides", "The metrics that the decision hangs on."),
              "guardrail": ("Guardrails", "Must not get worse by their margin or more; settled "
                            "once the whole interval lies on one side of it."),
              "secondary": ("What else moved", "Helps to understand; decides nothing.")}
    for role, (title, sub) in titles.items():
        mine = [(m, e) for m in found["metrics"] if m["role"] == role for e in m["effects"]]
        if not mine:
            continue
        shown = [e["relative"] for _, e in mine if e.get("relative")]
        scale = _scale(shown, [_margin(m, e) or 0.0 for m, e in mine])
        groups.append({"role": role, "title": title, "sub": sub,
                       "rows": [_row(found, m, e, scale) for m, e in mine]})
    return groups


def _row(
    found: Mapping[str, Any], metric: Mapping[str, Any], effect: Mapping[str, Any],
    scale: tuple[float, float] | None,
) -> dict[str, Any]:
    state, tone = effect["state"], {"better": "good", "worse": "bad"}.get(effect["state"], "")
    margin, p = _margin(metric, effect), effect.get("p_corrected")
    guard = effect.get("non_inferiority")
    if guard is not None:
        state, good = GUARDS[guard["state"]]
        tone, p = _tone(good), guard["p"]
    return {
        "name": metric["name"], "arm": effect["arm"], "state": state, "tone": tone,
        "control": metric["arms"][found["control"]]["value"],
        "treatment": metric["arms"][effect["arm"]]["value"],
        "share": metric["kind"] == "proportion" and not metric["covariate"],
        "change": _change(effect), "why": effect["why"],
        "p": p, "track": _track(effect.get("relative"), scale, margin),
        "margin": None if margin is None else percent(margin),
        "better": metric["better"],
        "cuped": (effect.get("cuped") or {}).get("variance_reduction"),
        "covariate": metric["covariate"],
        "units": sum(metric["arms"][a]["units"] for a in (found["control"], effect["arm"])),
    }


def _margin(metric: Mapping[str, Any], effect: Mapping[str, Any]) -> float | None:
    """Where a guardrail's margin lies among relative effects."""
    share = (effect.get("non_inferiority") or {}).get("relative_margin")
    return None if share is None else -share if metric["better"] == "higher" else share


def _scale(
    shown: Sequence[Mapping[str, float]], margins: Sequence[float] = ()
) -> tuple[float, float] | None:
    """A range with 0 in it that holds the intervals; one that is far wider than most is cut."""
    if not shown:
        return None
    reaches = sorted(max(abs(s["low"]), abs(s["high"])) for s in shown)
    reach = min(reaches[-1], 4 * reaches[len(reaches) // 2])
    reach = max(reach, *map(abs, margins), 0.0) * 1.1 or 1.0
    return -reach, reach


def _track(
    shown: Mapping[str, float] | None, scale: tuple[float, float] | None, margin: float | None
) -> dict[str, float | None] | None:
    """Where value, interval, 0 and margin lie, in percent of the width."""
    if shown is None or scale is None:
        return None

    def at(value: float) -> float:
        place = 100 * (value - scale[0]) / (scale[1] - scale[0])
        return round(min(max(place, 0.0), 100.0), 2)

    low, high = at(shown["low"]), at(shown["high"])
    return {"at": at(shown["value"]), "low": low, "width": max(round(high - low, 2), 0.5),
            "zero": at(0.0), "margin": None if margin is None else at(margin)}


def _slice(found: Mapping[str, Any]) -> dict[str, Any]:
    scale = _scale([x["relative"] for x in found["levels"] if x.get("relative")])
    differs = {True: ("the effect differs", "bad"), False: ("no sign of a difference", ""),
               None: ("too few data to tell", "")}[found["differs"]]
    return {
        "title": f"{found['metric']} by {found['slice']}", "arm": found["arm"],
        "mark": differs[0], "tone": differs[1], "p": found["p_corrected"],
        "rows": [{
            "level": x["level"], "units": sum(x["units"].values()), "change": _change(x),
            "track": _track(x.get("relative"), scale, None), "state": x["state"],
            "tone": {"better": "good", "worse": "bad"}.get(x["state"], ""), "why": x["why"],
        } for x in found["levels"]],
    }


def _how(found: Mapping[str, Any]) -> list[str]:
    """How the figures came about, for those who check them."""
    level = f"{100 * (1 - found['alpha']):g}%"
    words = {"holm": "Holm's method", "benjamini-hochberg": "Benjamini and Hochberg's method",
             "none": "nothing"}
    corrections = found["corrections"]
    lines = [
        f"Intervals are {level} confidence sequences (normal mixture, tuned to "
        f"{found['tuning']:,.0f} units): they hold at every look, so the test may be stopped at "
        "any time." if found["look"] == "sequential" and found["tuning"] else
        f"Intervals are {level} confidence intervals for one look at the end: Welch's t for means "
        "and ratios, the z test for shares.",
        "Changes are relative to the control, with intervals by the delta method; variances of "
        "ratios too.",
        f"p-values of deciding metrics are corrected by {words[corrections['primary']]}, those of "
        f"the others by {words[corrections['secondary']]}. Intervals are each for itself.",
        "A guardrail's p-value is that of a loss as great as its margin, one-sided at "
        f"{found['alpha'] / 2:g}. All have to hold, so nothing is corrected.",
    ]
    if any(m["covariate"] for m in found["metrics"]):
        lines.append("Where a covariate is named, what it explains is taken away (CUPED), with one "
                     "coefficient for all arms.")
    if found["bootstrap"]:
        lines.append(f"{found['bootstrap']['resamples']:,} resamples of units (seed "
                     f"{found['bootstrap']['seed']}) give the intervals in the JSON answer, too.")
    return lines
