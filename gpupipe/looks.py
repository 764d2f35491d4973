"""How often a holdout was looked at.

A holdout is honest once: whoever looks at its score, changes the pipeline and looks again has begun
to fit it. So every run that scores a holdout leaves a small file in a folder of that holdout, under
``runs/.cache/looks``, and the files are counted. The folder is named after the rows themselves,
whatever file they come from and whatever else of the pipeline changes. A file a look, under the
run's own name, needs no lock: two runs at once count each other or not, and lose nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from gpupipe.checkpoints import digest, temporary_name
from gpupipe.config import dump_config
from gpupipe.engine.hashing import mix64
from gpupipe.training import Trained


def look(trained: Trained, cache: Path, run: str, created: str) -> dict[str, Any] | None:
    """Note that ``run`` scores its holdout, and count; None where it has no holdout.

    Returns
    -------
    ``holdout``, what the rows are called; ``looks``, the runs that scored them, this one included;
    ``pipelines``, how many different pipelines those ran; ``first``, when the first of them was.
    """
    if not trained.split.holdout or trained.model.holdout is None:
        return None
    name = holdout_of(trained)
    folder = cache / "looks" / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run}.json"
    temporary = temporary_name(path)
    temporary.write_text(json.dumps({
        "run": run, "created": created, "pipeline": pipeline_of(trained),
    }), encoding="utf-8")
    temporary.replace(path)
    return {"holdout": name, **counted(folder)}


def counted(folder: Path) -> dict[str, Any]:
    """The looks that were noted in a holdout's folder."""
    notes = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("[!.]*.json")]
    return {"looks": len(notes), "pipelines": len({n["pipeline"] for n in notes}),
            "first": min(n["created"] for n in notes)}


def holdout_of(trained: Trained) -> str:
    """A name of the holdout's rows and their target, free of their order and files."""
    total, rows = np.uint64(0), 0
    with np.errstate(over="ignore"):
        for facts, mine in zip(trained.profile.facts, trained.rowed.rows, strict=True):
            keys = facts.key[np.isin(mine.bucket, list(trained.split.holdout))]
            total += mix64(keys, np).sum(dtype=np.uint64)
            rows += len(keys)
    return digest([trained.config.data.target, rows, int(total)])[:32]


def pipeline_of(trained: Trained) -> str:
    """A digest of what decides the model: the pipeline, without where it runs and its name."""
    config = dump_config(trained.config)
    config["split"].pop("honesty")
    return digest({k: v for k, v in config.items() if k not in ("name", "engine")})[:32]
