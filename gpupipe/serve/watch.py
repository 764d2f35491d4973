"""Other versions of the models in use: looked for, loaded beside the old ones, swapped as one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from gpupipe.errors import GpupipeError
from gpupipe.serve.lines import Lines
from gpupipe.serve.metrics import Metrics
from gpupipe.serve.models import Deployment, Model, load_model, version_at


class Holder(Protocol):
    """What has a deployment."""

    deployment: Deployment
    refused_versions: dict[str, str]


class Watch:
    """Looks at the references of a deployment every ``every`` seconds, or when it is told to.

    A version that does not load leaves the old one in place, is told once, and is tried again
    when it changes, or when a look is asked for.
    """

    def __init__(
        self, holder: Holder, wanted: Sequence[tuple[str, str, str | None]], every: float,
        metrics: Metrics, lines: Lines,
    ) -> None:
        self.holder, self.wanted, self.every = holder, wanted, every
        self.metrics, self.lines = metrics, lines
        self._now = asyncio.Event()
        self._bad: dict[str, str] = {}

    def look(self) -> None:
        """Look now (from the event loop's thread)."""
        self._bad.clear()
        self._now.set()

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self.every):
                    await self._now.wait()
            except TimeoutError:
                pass
            self._now.clear()
            await self.once()

    async def once(self) -> None:
        """Look at each reference; swap all models that changed in one assignment."""
        models, changed = list(self.holder.deployment.models), False
        for place, (reference, variant, name) in enumerate(self.wanted):
            other = await asyncio.to_thread(self._other, models[place], reference, variant, name)
            if other is not None:
                models[place], changed = other, True
        if changed:
            self.holder.deployment = replace(self.holder.deployment, models=tuple(models))

    def _other(
        self, model: Model, reference: str, variant: str, name: str | None
    ) -> Model | None:
        """The model that a reference leads to now, where it is another one that loads."""
        version = "?"
        try:
            version = version_at(reference)
            if version == model.version:
                self.holder.refused_versions.pop(variant, None)
                return None
            if self._bad.get(variant) == version:
                return None
            other = load_model(reference, variant, name)
            if name is None and variant == "champion" and other.name != model.name:
                other = replace(other, name=model.name)  # the paths stay
        except Exception as error:  # whatever is wrong with it, the old one goes on
            told = error.message if isinstance(error, GpupipeError) else type(error).__name__
            if self._bad.get(variant) != version:
                self.metrics.add("gpupipe_reloads_total", variant=variant, outcome="refused")
                self.lines.tell("reload_refused", variant=variant, reference=reference,
                                version=version, serving=model.version, error=told)
            self._bad[variant] = version
            self.holder.refused_versions[variant] = f"{version}: {told}"
            return None
        self._bad.pop(variant, None)
        self.holder.refused_versions.pop(variant, None)
        self.metrics.add("gpupipe_reloads_total", variant=variant, outcome="loaded")
        self.lines.tell("reloaded", variant=variant, reference=reference, version=other.version,
                        before=model.version)
        return other
