"""Retraining from a monitor's verdict: the same pipeline on fresh data, as a challenger.

    decide     an alert fires, and it is of the model that is champion now (or --force)
    train      the pipeline file as it is, on the fresh data
    register   a new version; the alias `challenger` moves to it, with what the gates said of it
    promote    only where that is asked for, and only where the gates pass

What a retraining follows from (the verdict, the data, the pipeline) has a key, which stands in the
version's record and beside the runs: the same again does nothing twice, also after a crash halfway.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gpupipe import predictions, workflow
from gpupipe.bundle.scoring import load
from gpupipe.checkpoints import digest, temporary_name
from gpupipe.config import PipelineConfig
from gpupipe.errors import ConfigError, DataError
from gpupipe.registry import Event, Registry, Version, add, fetch, split_name, stamp
from gpupipe.registry.gates import Gates, Verdict, judged, read_gates
from gpupipe.registry.promotion import Promotion

CHAMPION, CHALLENGER = "champion", "challenger"
MARK = "retraining "
"""What stands before the key in a version's record."""
KEPT = "retrainings"
"""The folder under `runs` that says which run a key made."""


@dataclass(frozen=True)
class Retraining:
    """What was decided, and what came of it.

    Attributes
    ----------
    decision : ``retrain``, ``not needed`` (no alert fires), ``stale`` (the verdict is of another
        model than the champion), ``no change`` (the very model that is champion came of it) or
        ``done before``; ``why`` says it in words.
    run : the new run's folder; None where nothing was trained.
    version : the challenger's version; None without a registry.
    gates : what they said of the challenger; None where none were asked.
    promotion : None where it was not asked for.
    """

    decision: str
    why: str
    run: Path | None = None
    model: str | None = None
    version: int | None = None
    gates: Mapping[str, Any] | None = None
    promotion: Promotion | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def code(self) -> int:
        """4 where a gate does not pass, else 0."""
        return 4 if self.gates is not None and not self.gates["passed"] else 0

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"decision": self.decision, "why": self.why, "run": self.run, "model": self.model,
                "version": self.version, "gates": self.gates, "metrics": self.metrics,
                "promotion": None if self.promotion is None else self.promotion.to_json()}


def retrain(
    config: PipelineConfig, *, verdict: str | Path | Mapping[str, Any] | None = None,
    registry: str | None = None, source: str | None = None, gates: Gates | None = None,
    judge: object = None, promote: bool = False, force: bool = False,
    runs: Path = Path("runs"), why: str = "", by: str | None = None, progress: Any = None,
) -> Retraining:
    """Retrain a pipeline where a verdict of `gpupipe monitor` asks for it.

    Parameters
    ----------
    verdict : the verdict, or the file that holds it (``HISTORY/verdict.json``).
    registry : ``REGISTRY/NAME``, where the challenger becomes a version; None: a run alone.
    source : the fresh data; None: the pipeline file's own source, as it is now.
    gates : what the challenger has to pass against the champion; None: the default rules.
    judge : labelled data that neither model learned from; None: the new run's holdout.
    promote : make it champion where the gates pass.
    force : retrain although no alert fires.

    Raises
    ------
    ConfigError : no verdict and no force; gates without rows to ask them on.
    DataError : a verdict, data or a registry that cannot be read.
    """
    if verdict is None and not force:
        raise ConfigError("there is no verdict that asks for a retraining",
                          hint="--verdict HISTORY/verdict.json, or --force to retrain anyway")
    if promote and registry is None:
        raise ConfigError("what is promoted is a version in a registry, and none was named",
                          hint="--registry models/churn")
    found = None if verdict is None else read_verdict(verdict)
    place = None if registry is None else _Place.of(registry)
    if place is not None and judge is None and not config.split.holdout:
        raise ConfigError("the gates need rows that neither model learned from, and the pipeline "
                          "keeps no holdout", hint="--judge labelled.parquet, or split.holdout")
    if source is not None:
        whole = source if "://" in source else str(Path(source).expanduser().absolute())
        config = config.model_copy(update={
            "data": config.data.model_copy(update={"source": whole})})
    dataset = workflow.ingested(config, runs / ".cache", None, progress)
    key = digest([found and _essence(found), dataset.fingerprint,
                  config.model_dump(mode="json", exclude={"monitor"})])[:16]
    reason, trained = _reason(found, force), _kept(runs, key)
    version = place.version_of(key) if place else None
    run, metrics = None, {}
    if version is None and trained is None:
        no = None if force else _unneeded(found, place)
        if no is not None:
            return no
        result = workflow.run(config, runs=runs, progress=progress)
        trained, run, metrics = result.run, result.run, result.metrics
        _keep(runs, key, run)
    if place is None:
        return Retraining("retrain" if run else "done before",
                          reason if run else "the same verdict and data", trained, metrics=metrics)
    if version is None:
        assert trained is not None
        told = f"{why or reason} [{MARK}{key}]"
        version = add(place.registry, place.name, trained, added=stamp(told, by))
    return place.settled(version, run, metrics, reason, gates or read_gates(None), judge, promote,
                         config, runs, by, progress)


@dataclass(frozen=True)
class _Place:
    """A model in a registry."""

    registry: Registry
    name: str
    model: str

    @classmethod
    def of(cls, model: str) -> _Place:
        root, name = split_name(model)
        return cls(Registry(root), name, model)

    def alias(self, alias: str) -> Event | None:
        return self.registry.alias(self.name, alias)

    def version_of(self, key: str) -> Version | None:
        """The version that a retraining of this key made."""
        try:
            versions = self.registry.versions(self.name)
        except DataError:  # the first version makes model and registry
            return None
        return next((v for v in versions if f"[{MARK}{key}]" in v.added.why), None)

    def champion_digest(self) -> str | None:
        """What a verdict calls the champion; None where there is none."""
        at = self.alias(CHAMPION)
        if at is None:
            return None
        members = self.registry.version(self.name, at.version).members
        return str(members["hashes.json"]["sha256"])

    def settled(
        self, version: Version, run: Path | None, metrics: Mapping[str, Any], reason: str,
        rules: Gates, judge: object, promote: bool, config: PipelineConfig, runs: Path,
        by: str | None, progress: Any,
    ) -> Retraining:
        """The version as challenger, its gates asked once, and promoted where that is wanted."""
        moves = [e for e in self.registry.history(self.name, CHALLENGER)
                 if e.version == version.version] if self.alias(CHALLENGER) else []
        seen, was = self.alias(CHAMPION), self.alias(CHALLENGER)
        if seen is not None and seen.version == version.version and not moves:
            return Retraining("no change", "the data give the very model that is champion", run,
                              self.model, version.version, metrics=metrics)
        known = moves[-1].gates if moves else None
        done_before = run is None and known is not None
        if known is None:
            known = self._asked(version, seen, run, rules, judge, config, runs, progress)
            self.registry.move(self.name, CHALLENGER, version.version, seen=was, action="retrain",
                               moved=stamp(reason, by), gates=known)
        promotion = None
        if promote:
            promotion = self._promoted(version, seen, known, reason, by)
        return Retraining(
            "done before" if done_before else "retrain",
            f"the same verdict and data made version {version.version}" if done_before else reason,
            run, self.model, version.version, known, promotion, metrics)

    def _asked(
        self, version: Version, champion: Event | None, run: Path | None, rules: Gates,
        judge: object, config: PipelineConfig, runs: Path, progress: Any,
    ) -> dict[str, Any]:
        if judge is None and champion is not None:
            at = run or runs / (version.run or "")
            judge = held_out(config, at, runs / ".cache", progress)
        bundles = [load(fetch(self.registry, v)) for v in (
            version, *([self.registry.version(self.name, champion.version)] if champion else []))]
        told: Verdict = judged(
            rules, bundles[0], bundles[1] if champion else None, judge,
            numbers=(version.version, champion.version if champion else None), progress=progress)
        return told.to_json()

    def _promoted(
        self, version: Version, seen: Event | None, gates: Mapping[str, Any], reason: str,
        by: str | None,
    ) -> Promotion:
        """The champion's alias moved, where the gates passed against who is champion now."""
        there = None if seen is None else seen.version
        if there == version.version:
            return Promotion(CHAMPION, version.version, None, None, already=True)
        if not gates["passed"]:
            return Promotion(CHAMPION, version.version, None, None)
        if gates["champion"] != there:
            raise ConfigError(
                f"the gates held version {version.version} against version {gates['champion']}, "
                f"and version {there} is champion now",
                hint=f"gpupipe models promote {self.model}@{version.version} --data LABELLED")
        move = self.registry.move(self.name, CHAMPION, version.version, seen=seen,
                                  moved=stamp(reason, by), gates=gates)
        return Promotion(CHAMPION, version.version, move, None)


def read_verdict(verdict: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """A verdict of `gpupipe monitor`. DataError where it is none."""
    where = None if isinstance(verdict, Mapping) else str(verdict)
    try:
        found = dict(verdict) if isinstance(verdict, Mapping) else json.loads(
            Path(verdict).read_bytes())
        if not (isinstance(found["firing"], bool) and found["model"]["digest"]):
            raise TypeError("firing")
    except OSError as error:
        raise DataError(f"the verdict cannot be read: {error.strerror or error}", where=where,
                        hint="`gpupipe monitor ... --history FOLDER` writes FOLDER/verdict.json"
                        ) from None
    except (ValueError, KeyError, TypeError):
        raise DataError("this is no verdict of `gpupipe monitor`", where=where,
                        hint="name FOLDER/verdict.json of a history") from None
    return dict(found)


def held_out(config: PipelineConfig, run: Path, cache: Path, progress: Any = None) -> pa.Table:
    """The rows of the data that a run kept as its holdout, labels included."""
    dataset = workflow.ingested(config, cache, None, progress)
    _, _, sides = predictions.read(run)
    if "holdout" not in sides:
        raise DataError("this run has no holdout to ask the gates on", where=str(run),
                        hint="--judge labelled.parquet")
    wanted, start, found = np.sort(sides["holdout"].row), 0, []
    for table in dataset.stream():
        a, b = np.searchsorted(wanted, [start, start + table.num_rows])
        found.append(table.take(pa.array(wanted[a:b] - start)))
        start += table.num_rows
    return pa.concat_tables([t.unify_dictionaries() for t in found],
                            promote_options="permissive")


def _essence(verdict: Mapping[str, Any]) -> Any:
    """What of a verdict a retraining follows from: not how often it was scanned."""
    return {k: v for k, v in verdict.items() if k not in ("scanned", "notes", "alerts")}


def _reason(verdict: Mapping[str, Any] | None, force: bool) -> str:
    if verdict is None or not verdict["firing"]:
        return "asked for" if force else "no alert fires"
    about = [f["text"].partition(":")[0] for f in verdict.get("findings", ())
             if f.get("state") == "alert"]
    names = list(dict.fromkeys(about))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"an alert of {', '.join(names[:3])}{more}" if names else "an alert"


def _unneeded(verdict: Mapping[str, Any] | None, place: _Place | None) -> Retraining | None:
    """Why nothing is to be done; None where there is."""
    if verdict is None:
        return None
    if not verdict["firing"]:
        return Retraining("not needed", f"no alert fires: the state is {verdict.get('state')}")
    champion = place.champion_digest() if place else None
    if champion is not None and champion != verdict["model"]["digest"]:
        return Retraining("stale", "the verdict is of another model than the champion: monitor "
                          "that one, or --force")
    return None


def _kept(runs: Path, key: str) -> Path | None:
    path = runs / KEPT / f"{key}.json"
    if not path.exists():
        return None
    run = Path(json.loads(path.read_text(encoding="utf-8"))["run"])
    return run if run.is_dir() else None


def _keep(runs: Path, key: str, run: Path) -> None:
    path = runs / KEPT / f"{key}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    temporary.write_text(json.dumps({"run": str(run)}), encoding="utf-8")
    temporary.replace(path)
