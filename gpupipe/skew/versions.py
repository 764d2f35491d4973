"""The bundle of each version that a log names."""

from __future__ import annotations

from pathlib import Path

from gpupipe.bundle import Bundle, load
from gpupipe.bundle.store import version_of
from gpupipe.errors import DataError
from gpupipe.registry import is_reference, resolve, split_name
from gpupipe.registry.registry import Registry


class Answering:
    """Finds bundles by what a log calls them.

    Parameters
    ----------
    model : the name that the log's rows must have; None where the version alone tells.
    known : bundles by version. registry : where other versions are looked up; None where ``known``
        is all.
    """

    def __init__(
        self, model: str | None, known: dict[str, Bundle], registry: str | None = None,
    ) -> None:
        self.model, self.known, self.registry = model, known, registry
        self.absent: dict[str, str] = {}

    def bundle(self, model: str, version: str) -> tuple[Bundle | None, str]:
        """The bundle that answered as this version; or None, and why there is none."""
        if self.model is not None and model != self.model:
            return None, f"another model than {self.model}"
        if version not in self.known and self.registry is None:
            return None, "another version than " + ", ".join(self.known)
        if version in self.absent:
            return None, self.absent[version]
        if version not in self.known:
            try:
                self.known[version] = _supervised(load(resolve(
                    f"{self.registry}@{version}").path))
            except DataError as error:
                self.absent[version] = error.message
                return None, error.message
        return self.known[version], ""


def answering(reference: str | Path, name: str | None = None) -> Answering:
    """What a reference finds: one bundle, or each version of a registry's model."""
    text = str(reference).rstrip("/")
    last = text.rpartition("/")[2]
    if "@" not in last and ("://" in text or (Path(text) / "versions").is_dir()):
        root, model = split_name(text)
        Registry(root).versions(model)  # tells where there is no such model
        return Answering(name or model, {}, text)
    resolved = resolve(reference)
    bundle = _supervised(load(resolved.path))
    if is_reference(text):
        return Answering(name or resolved.name, {str(resolved.version): bundle})
    return Answering(name, {version_of(resolved.path): bundle})


def _supervised(bundle: Bundle) -> Bundle:
    if bundle.outputs:
        raise DataError("this model learned without a target: a log has no score of it",
                        where=str(bundle.path))
    return bundle
