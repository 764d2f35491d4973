"""Parity: one pipeline on two devices or engines, held against each other step by step."""

from __future__ import annotations

import datetime as dt
import json
import platform
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from gpupipe.checkpoints import temporary_name
from gpupipe.config import EngineConfig, PipelineConfig
from gpupipe.data.dataset import on_disk
from gpupipe.engine.choose import choose
from gpupipe.engine.devices import ask_driver
from gpupipe.engine.gpu import read
from gpupipe.engine.machine import cores, cuda_devices, memory_limit
from gpupipe.engine.packages import installed
from gpupipe.errors import ConfigError, EnvironmentFault
from gpupipe.models import load_ahead
from gpupipe.models.base import Payload
from gpupipe.parity.certificate import Certificate, Level, compare
from gpupipe.parity.observe import Observed, metrics_of, observe
from gpupipe.parity.page import render_certificate
from gpupipe.record import versions
from gpupipe.training import retrain, train
from gpupipe.workflow import ingested, scratch_folder

__all__ = ["SIDES", "Certificate", "Level", "parity", "sides", "write"]

SIDES: Mapping[str, Mapping[str, Any]] = {
    "cpu": {"device": "cpu", "kind": "local", "address": None},
    "cuda": {"device": "cuda", "kind": "local", "address": None},
    "local": {"kind": "local", "address": None},
    "dask": {"kind": "dask"},
}
"""What each side's name says of the engine; the rest is as in the pipeline file."""
SEEDS = 3


def sides(left: str | None = None, right: str | None = None) -> tuple[str, str]:
    """The names of the two sides: CPU and GPU where there is a GPU, else local and Dask.

    ConfigError for an unknown name, or the same one twice.
    """
    defaults = ("cpu", "cuda") if cuda_devices() else ("local", "dask")
    named = left or defaults[0], right or defaults[1]
    for name in named:
        if name not in SIDES:
            raise ConfigError(f"{name!r} is no side", hint=f"a side is one of {', '.join(SIDES)}")
    if named[0] == named[1]:
        raise ConfigError(f"both sides are {named[0]!r}", hint="name two: --left cpu --right cuda")
    return named


def engine_of(name: str, engine: EngineConfig) -> EngineConfig:
    """A pipeline's engine, as a side has it."""
    return engine.model_copy(update=dict(SIDES[name]))


def parity(
    config: PipelineConfig, left: EngineConfig, right: EngineConfig, *,
    names: tuple[str, str] = ("left", "right"), seeds: int = SEEDS,
    cache: Path = Path("runs") / ".cache", progress: Any = None,
) -> Certificate:
    """Run a pipeline on both sides, from nothing, and hold them against each other.

    Parameters
    ----------
    left, right : where each side runs.
    names : what to call them.
    seeds : the left's model is trained with so many seeds, at least 2, for the deviation.
    cache : the folder of ingested tables; nothing that was learned is taken from it.
    """
    if seeds < 2:
        raise ConfigError(f"--seeds is {seeds}, and a deviation needs at least 2")
    choices = choose(left), choose(right)  # both, before any work: the second may not be there
    load_ahead(config.model.kind)
    first, over, about_left = _side(config, left, names[0], cache, progress, seeds)
    second, _, about_right = _side(config, right, names[1], cache, progress, 1,
                                   first.model, first.keys)
    about = {
        "name": config.name, "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "task": about_left.pop("task"), "data": about_left.pop("data"), "left": about_left,
        "right": about_right, "seed": config.seed, "hardware": _hardware(),
        "versions": _versions(remote=any(c.remote for c in choices)),
        "fingerprints": {"left": first.fingerprint, "right": second.fingerprint},
        "sampled_rows": len(first.scores),
    }
    return compare(first, second, over, about)


def write(certificate: Certificate, folder: Path) -> tuple[Path, Path]:
    """Write ``certificate.json`` and ``certificate.html``, each whole or not at all."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(f"the folder cannot be made: {error.strerror}", where=str(folder),
                               hint="name another one with --output") from None
    data = json.dumps(certificate.to_json(), indent=1, ensure_ascii=False)
    made = []
    for name, text in (("certificate.json", data),
                       ("certificate.html", render_certificate(certificate))):
        beside = temporary_name(folder / name)
        beside.write_text(text, encoding="utf-8")
        made.append(beside.replace(folder / name))
    return made[0], made[1]


def _side(
    config: PipelineConfig, engine: EngineConfig, name: str, cache: Path, progress: Any,
    seeds: int, model: tuple[str, Payload] | None = None, keys: np.ndarray | None = None,
) -> tuple[Observed, list[Mapping[str, float | None]], dict[str, Any]]:
    """One side: what it came to, its metrics over seeds, and what it is."""
    choice, started = choose(engine), perf_counter()
    with choice.opened() as (opened, chosen), scratch_folder(cache) as scratch:
        opened.warm(partial(load_ahead, config.model.kind))
        dataset = on_disk(ingested(config, cache, None, progress), scratch)
        unjudged = config.leaks.model_copy(update={"check": "off"})  # two sides, one leak
        side = config.model_copy(update={"engine": engine, "leaks": unjudged})
        trained = train(side, dataset, opened, progress=progress, scratch=scratch)
        seconds = perf_counter() - started
        found = observe(trained, chosen.device, model, keys)
        over = [found.metrics, *(metrics_of(retrain(
            trained, (config.seed + i) % 2**32, progress=progress, scratch=scratch))
            for i in range(1, seeds))]
        data = {"source": dataset.source, "rows": dataset.rows,
                "columns": len(dataset.schema.fields), "fingerprint": dataset.fingerprint}
        about = {"name": name, "seconds": round(seconds, 3), "engine": chosen.to_json(),
                 "task": trained.target.task, "data": data}
    return found, over, about


def _hardware() -> dict[str, Any]:
    """Processor, cores, memory and GPUs."""
    processor = re.search(r"^model name\s*: (.*)$", read("/proc/cpuinfo"), re.MULTILINE)
    return {
        "platform": platform.platform(), "cores": cores(), "memory_bytes": memory_limit(),
        "processor": processor[1] if processor else platform.processor(),
        "gpus": [str(d) for d in ask_driver().devices],
    }


def _versions(remote: bool) -> dict[str, str]:
    """Of gpupipe, and of all that either side's numbers depend on."""
    more = {name: installed(name, f"{name}-cu13", f"{name}-cu12") for name in ("cudf", "cuml")}
    more["cupy"] = installed("cupy-cuda13x", "cupy-cuda12x", "cupy")
    if remote:
        more["distributed"] = installed("distributed")
    return versions() | {name: v for name, v in more.items() if v}
