"""Versions of models in a folder or an object store, and aliases that are moved between them.

`Registry` holds records (`registry`), `resolve` gives the bundle that a reference stands for
(`bundles`), `gates` say whether a challenger may take the champion's place.
"""

from gpupipe.registry.bundles import Resolved, add, fetch, resolve, verify
from gpupipe.registry.names import is_reference, split_name
from gpupipe.registry.records import Event, Version, stamp
from gpupipe.registry.registry import Conflict, Registry
from gpupipe.registry.views import compared, described, listed, verified, version_of

__all__ = [
    "Conflict", "Event", "Registry", "Resolved", "Version", "add", "compared", "described", "fetch",
    "is_reference", "listed", "resolve", "split_name", "stamp", "verified", "verify",
    "version_of",
]
