"""How the answers of ``gpupipe models`` look in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gpupipe.cli.show import metrics, notes
from gpupipe.console import say, table


def models(found: Mapping[str, Any]) -> None:
    """The models of a registry."""
    if not found["models"]:
        say("no models yet")
        return
    table(["model", "task", "versions", "newest", "aliases"],
          [[m["name"], m["task"], m["versions"], _short(m["newest"]), _aliases(m["aliases"])]
           for m in found["models"]])


def model(found: Mapping[str, Any]) -> None:
    """A model, or one version of it."""
    if "versions" not in found:
        version(found)
        return
    pointing: dict[int, list[str]] = {}
    for alias, number in found["aliases"].items():
        pointing.setdefault(number, []).append(alias)
    table(["version", "aliases", "added", "by", "why", *_leads(found["versions"])],
          [[v["version"], ", ".join(pointing.get(v["version"], ())), _short(v["added"]["when"]),
            v["added"]["who"], v["added"]["why"],
            *((v["metrics"] or {}).get(m, {}).get("value") for m in _leads(found["versions"]))]
           for v in found["versions"]])
    table(["moved", "alias", "from", "to", "how", "gates", "by", "why"],
          [[_short(e["moved"]["when"]), e["alias"], e["before"], e["version"],
            e["action"] + (", forced" if e["forced"] else ""), _verdict(e["gates"]),
            e["moved"]["who"], e["moved"]["why"]] for e in found["history"]])


def version(found: Mapping[str, Any]) -> None:
    """One version, whole."""
    data = found["data"]
    for name, value in {
        "model": f"{found['name']}@{found['version']}", "aliases": ", ".join(found["aliases"]),
        "added": f"{_short(found['added']['when'])} by {found['added']['who']}",
        "why": found["added"]["why"], "run": found["run"], "task": found["task"],
        "target": found["target"], "digest": found["digest"],
        "data": f"{data.get('rows', 0):,} rows, {data.get('fingerprint', '')}",
        "size": f"{sum(m['size'] for m in found['members'].values()):,} bytes",
    }.items():
        if value:
            say(f"{name:<8}{value}")
    metrics(found)


def added(model: str, made: Any) -> None:
    """A version that is there now."""
    say(f"{model}@{made.version}  added {_short(made.added.when)} by {made.added.who}")
    say(f"next    gpupipe models promote {model}@{made.version} champion", "dim")


def moved(event: Any) -> None:
    """A move of an alias."""
    before = "nothing" if event.before is None else f"version {event.before}"
    forced = ", by force" if event.forced else ""
    say(f"{event.alias} of {event.name}: {before} -> version {event.version}{forced}")


def retrained(done: Any) -> None:
    """What was decided, the challenger, its gates, and who is champion."""
    say(f"{done.decision}: {done.why}")
    if done.run is not None:
        say(f"run     {done.run}")
    if done.version is not None:
        say(f"version {done.version} of {done.model} is its challenger")
    if done.gates is not None:
        table(["gate", "asks", "found", "passed"],
              [[g["name"], g["asks"], g["found"],
                {True: "yes", False: "NO", None: "not asked"}[g["passed"]]]
               for g in done.gates["gates"]], f"against version {done.gates['champion']}"
              if done.gates["champion"] else "there is no champion yet")
    if done.promotion is not None:
        promoted(done.promotion)
    elif done.gates is not None:
        say("it answers nobody yet: an experiment, or `gpupipe models promote`, comes next")


def promoted(done: Any) -> None:
    """The gates, and whether the alias moved."""
    if done.verdict is not None:
        against = done.verdict.champion
        rows = done.verdict.rows
        table(["gate", "asks", "found", "passed"],
              [[g.name, g.asks, g.found, {True: "yes", False: "NO", None: "not asked"}[g.passed]]
               for g in done.verdict.gates],
              f"version {done.version}" + (f" against {against}" if against else "")
              + (f" on {rows:,} rows" if rows else ""))
    if done.already:
        say(f"{done.alias} is at version {done.version} already")
    elif done.move is not None:
        moved(done.move)
    else:
        say(f"{done.alias} stays where it is: a gate did not pass (--force moves it anyway)",
            "bold red")


def exported(done: Mapping[str, Any]) -> None:
    """What was written."""
    notes(done["notes"])
    say(f"{done['format']}: {done['output']} ({', '.join(done['files'])})")


def verified(found: Mapping[str, Any]) -> None:
    """What was verified."""
    table(["version", "digest", "files", "bytes"],
          [[v["version"], v["digest"][:16], v["members"], v["size"]] for v in found["versions"]])
    say(f"{found['name']}: hashes, golden rows and {found['moves']} moves are as they were written",
        "bold")


def _leads(versions: Any) -> list[str]:
    """The first metric of the newest version that has any."""
    return next((list(v["metrics"])[:1] for v in reversed(versions) if v["metrics"]), [])


def _aliases(found: Mapping[str, int]) -> str:
    return ", ".join(f"{alias}: {number}" for alias, number in found.items())


def _verdict(gates: Mapping[str, Any] | None) -> str:
    return "" if gates is None else "passed" if gates["passed"] else "not passed"


def _short(when: str) -> str:
    return when[:16].replace("T", " ")
