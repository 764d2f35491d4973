"""The models that answer: loaded, watched for other versions, swapped as one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from gpupipe.bundle import Bundle, load
from gpupipe.bundle.store import read_states, version_of
from gpupipe.errors import ConfigError
from gpupipe.experiment.assign import Split, assign
from gpupipe.registry import Registry, is_reference, resolve
from gpupipe.registry.names import split_reference
from gpupipe.serve.metrics import SHARES
from gpupipe.serve.rows import Checks
from gpupipe.serve.settings import ServeConfig

CHAMPION = "champion"


@dataclass(frozen=True)
class Found:
    """Where a reference leads now."""

    path: Path
    name: str | None
    version: str


def find(reference: str) -> Found:
    """The bundle that a reference names now. Raises DataError or ConfigError where there is none.

    The version of a folder is that of `bundle.store.version_of`.
    """
    if is_reference(reference):
        resolved = resolve(reference)
        return Found(resolved.path, resolved.name, str(resolved.version))
    return Found(_folder(reference), None, version_at(reference))


def version_at(reference: str) -> str:
    """The version that a reference names now, found without reading the bundle."""
    if is_reference(reference):
        root, name, at = split_reference(reference)
        return str(Registry(root).number_of(name, at))
    return version_of(_folder(reference))


def _folder(reference: str) -> Path:
    folder = Path(reference)
    if not folder.is_dir():
        raise ConfigError("there is no such run or bundle", where=reference,
                          hint="name a run's folder, a bundle's, or REGISTRY/NAME@ALIAS")
    return folder / "bundle" if (folder / "bundle").is_dir() else folder


@dataclass(frozen=True, eq=False)
class Model:
    """A model that answers.

    Attributes
    ----------
    variant : ``champion``, or the name of a challenger or shadow.
    edges : upper edges of the histogram of its scores.
    """

    reference: str
    variant: str
    name: str
    version: str
    bundle: Bundle = field(repr=False)
    checks: Checks = field(repr=False)
    edges: tuple[float, ...] = field(repr=False)
    loaded: float

    @cached_property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """What its answers carry."""
        return ((b"x-model-name", self.name.encode("latin-1", "replace")),
                (b"x-model-version", self.version.encode("latin-1", "replace")),
                (b"x-model-variant", self.variant.encode()))


def load_model(reference: str, variant: str, name: str | None) -> Model:
    """Load what a reference leads to; golden rows are replayed by `gpupipe.load`."""
    found = find(reference)
    bundle = load(found.path)
    states = read_states(bundle.path)
    levels = {column: frozenset(v for v in known["vocabulary"]["levels"].to_pylist()
                                if v is not None)
              for column, known in states.items() if "vocabulary" in known}
    called = name or found.name or str(bundle.info.get("name") or "model")
    return Model(reference, variant, called.replace("/", "-"), found.version, bundle,
                 Checks.of(bundle.schema, levels), _edges(bundle), time.time())


def _edges(bundle: Bundle) -> tuple[float, ...]:
    """Twentieths for probabilities; for values twenty steps over those of the golden rows."""
    if bundle.classes:
        return SHARES
    from gpupipe.bundle.latency import golden_records

    values = [p["prediction"] for p in bundle.predict_records(golden_records(bundle))
              if isinstance(p.get("prediction"), (int, float))]
    if not values or min(values) == max(values):
        return SHARES
    low, step = min(values), (max(values) - min(values)) / 20
    return tuple(float(f"{low + i * step:.6g}") for i in range(21))


@dataclass(frozen=True)
class Deployment:
    """The models of one moment. A request takes it once, and is answered by one of them.

    Attributes
    ----------
    models : the champion, then the challengers.
    """

    models: tuple[Model, ...]
    split: Split | None = None

    @property
    def champion(self) -> Model:
        return self.models[0]

    def chosen(self, unit: str | None) -> Model:
        """The model of a unit: by its hash where there are challengers; without a unit, the
        champion."""
        if self.split is None or unit is None:
            return self.models[0]
        arm = assign(unit, self.split).arm
        return next((m for m in self.models if m.variant == arm), self.models[0])


def split_of(settings: ServeConfig) -> Split | None:
    """How units are dealt out among champion and challengers; None without challengers."""
    if not settings.challengers:
        return None
    shares = {c.name: c.share for c in settings.challengers}
    assert settings.salt is not None
    return Split(settings.salt, {CHAMPION: 1 - sum(shares.values()), **shares})


def answering(settings: ServeConfig) -> list[tuple[str, str, str | None]]:
    """Reference, variant and name of each model that answers."""
    return [(settings.champion, CHAMPION, settings.name),
            *((c.model, c.name, settings.name) for c in settings.challengers)]


def shadowing(settings: ServeConfig) -> list[tuple[str, str, str | None]]:
    """Reference, variant and name of each model that scores beside the answer."""
    return [(s.model, s.name, settings.name) for s in settings.shadow]


def deploy(wanted: Sequence[tuple[str, str, str | None]], split: Split | None = None) -> Deployment:
    """Load every model. Raises what `load_model` raises."""
    return Deployment(tuple(load_model(*one) for one in wanted), split)
