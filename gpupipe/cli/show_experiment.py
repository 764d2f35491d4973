"""How plans, arms and verdicts look in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpupipe.cli.outcome import plain
from gpupipe.console import say, table
from gpupipe.experiment.verdict import percent, signed

STYLES = {"better": "bold green", "worse": "bold red", "blocked": "bold red",
          "guardrail broken": "bold red"}


def plan(found: Mapping[str, Any]) -> None:
    """Sizes by metric, and where the plan was registered."""
    if "metrics" not in found:
        _quick(found)
        return
    table(
        ["metric", "role", "arm", "baseline", "effect", "units", "expected", "can find", "alpha"],
        [[r["metric"], r["role"], r["arm"], r["baseline"], r["effect"], _count(r["units"]),
          _count(r["expected_units"]), r["detectable"], r["alpha"]] for r in found["metrics"]],
        f"{found['name']}: units of all arms",
    )
    for row in found["metrics"]:
        if row["why"]:
            say(f"{row['metric']}: {row['why']}", "yellow")
        if row["variance_reduction"]:
            say(f"{row['metric']}: the covariate takes {row['variance_reduction']:.0%} of the "
                "variance away")
    if found["units"] is not None:
        days = "" if found["days"] is None else f", {found['days']:,} days"
        say(f"units    {found['units']:,} of all arms together{days}", "bold")
    if found["look"] == "sequential" and found["tuning"]:
        say("looks    as often as you like; intervals are tightest at "
            f"{found['tuning']:,.0f} units")
    if found["output"]:
        say(f"plan     {found['output']}, hash {found['hash']}")
    else:
        say("next     --output plan.json registers the plan")


def _count(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"


def _quick(found: Mapping[str, Any]) -> None:
    if found["detectable"] is not None:
        say(f"With {found['units']:,} units an effect of {found['detectable']:.4g} is found with "
            f"{found['power']:.0%} power.")
        return
    say(f"{found['control_units']:,.1f} units of the control, {found['treatment_units']:,.1f} of "
        f"the treatment, {found['units']:,.0f} together", "bold")
    if found["maximal_units"] is not None:
        say(f"looked at all the time: {found['expected_units']:,.0f} units on average if the "
            f"effect is there, {found['maximal_units']:,.0f} at most")


def assigned(found: Mapping[str, Any]) -> None:
    """Each unit's arm, or how many rows came to which."""
    if "units" in found:
        table(["unit", "arm", "why"], [[u["unit"], u["arm"], u["why"]] for u in found["units"]])
        return
    rows = [[a, f"{n:,}", f"{n / max(1, found['rows']):.2%}"] for a, n in found["arms"].items()]
    rows += [[f"({why})", f"{n:,}", f"{n / max(1, found['rows']):.2%}"]
             for why, n in found["left_out"].items()]
    table(["arm", "rows", "share"], rows, found["name"])
    say(f"wrote {found['output']}")


def verdict(found: Mapping[str, Any], page: Path | None) -> None:
    """Trust, metrics, slices, and what they come to."""
    found = plain(found)
    ratio = found["srm"]
    mark = {True: "fits the plan", False: "does not fit the plan", None: "too few units to tell"}
    table(["arm", "units", "share", "planned"],
          [[a["name"], f"{a['units']:,}", f"{a['share']:.2%}" if a["share"] is not None else None,
            f"{a['planned']:.2%}"] for a in found["arms"]],
          f"{found['name']}: {found['units']:,} units")
    say(f"ratio    {mark[ratio['ok']]} (p = {ratio['p']:.5g}, alpha {ratio['alpha']:g})"
        + (", acknowledged" if ratio["ok"] is False and ratio["acknowledged"] else ""),
        "bold red" if ratio["ok"] is False else None)
    status = found["plan"]["status"]
    say("plan     " + {
        "registered": f"registered {found['plan']['registered']}, unchanged",
        "changed": "CHANGED after it was registered",
        "none": "none registered: this is exploration",
    }[status], "bold red" if status == "changed" else None)
    _metrics(found)
    _slices(found)
    for text in [*found["remarks"], *found["notes"]]:
        say(f"note     {text}", "yellow" if text in found["remarks"] else "dim")
    for arm, one in found["verdicts"].items():
        name = f"{arm}: " if len(found["verdicts"]) > 1 else ""
        say()
        say(f"verdict  {name}{one['sentence']}", STYLES.get(one["state"], "bold"))
        for why in one["why"]:
            say(f"         {why}")
        say(f"next     {one['next']}")
    if page is not None:
        say(f"page     {page}")


def _metrics(found: Mapping[str, Any]) -> None:
    several = len(found["arms"]) > 2
    rows = []
    for m in found["metrics"]:
        for e in m["effects"]:
            change, write = e.get("relative"), percent
            if change is None:
                change, write = e.get("difference"), signed
            state, p = e["state"], e.get("p_corrected")
            if m["role"] == "guardrail" and "non_inferiority" in e:
                state = {"holds": "within margin", "broken": "broken",
                         "not shown": "open"}[e["non_inferiority"]["state"]]
                p = e["non_inferiority"]["p"]
            rows.append([
                m["name"], m["role"], *([e["arm"]] if several else []),
                m["arms"][found["control"]]["value"], m["arms"][e["arm"]]["value"],
                None if change is None else write(change["value"]),
                None if change is None else f"{write(change['low'])} to {write(change['high'])}",
                None if p is None else f"{p:.4g}", state,
            ])
    level = f"{100 * (1 - found['alpha']):g}% interval"
    always = ", at every look" if found["look"] == "sequential" else ""
    table(["metric", "role", *(["arm"] if several else []), found["control"],
           "arm's" if several else found["arms"][1]["name"], "change", level + always, "p", ""],
          rows)
    for m in found["metrics"]:
        for e in m["effects"]:
            if e["why"]:
                say(f"{m['name']}, {e['arm']}: {e['why']}", "yellow")
            if e.get("cuped"):
                say(f"{m['name']}, {e['arm']}: {m['covariate']!r} takes "
                    f"{e['cuped']['variance_reduction']:.1%} of the variance away", "dim")
            if e.get("bootstrap"):
                b = e["bootstrap"]["relative"] or e["bootstrap"]["difference"]
                write = percent if e["bootstrap"]["relative"] else signed
                if b:
                    say(f"{m['name']}, {e['arm']}: {write(b['low'])} to {write(b['high'])} by "
                        "resampling units", "dim")


def _slices(found: Mapping[str, Any]) -> None:
    for s in found["slices"]:
        rows = []
        for level in s["levels"]:
            change = level.get("relative") or level.get("difference")
            write = percent if level.get("relative") else signed
            rows.append([level["level"], sum(level["units"].values()),
                         None if change is None else write(change["value"]),
                         None if change is None else
                         f"{write(change['low'])} to {write(change['high'])}", level["state"]])
        differs = {True: "the effect differs", False: "no sign that the effect differs",
                   None: "too few data to tell"}[s["differs"]]
        p = "" if s["p_corrected"] is None else f" (p = {s['p_corrected']:.3g})"
        table([s["slice"], "units", "change", "interval", ""], rows,
              f"{s['metric']} in {s['arm']} by {s['slice']}: {differs}{p}")
