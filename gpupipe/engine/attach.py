"""What a process holds that works for another one: what was sent there once, to be used often.

A function that goes to other processes is packed with references in place of the large things
that it shares with others (`Engine.pin`): those travel once, and are kept here under a token.
Readers are kept as well, so that the columns that one task decoded are there for the next.
"""

from __future__ import annotations

import io
import pickle
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_HELD: dict[str, Any] = {}
_FUNCTIONS: OrderedDict[str, Callable[..., Any]] = OrderedDict()
_LOCK = threading.RLock()
FUNCTIONS = 8
"""So many functions are kept unpacked: those of the passes that are under way."""


class Sender:
    """Packs functions, with what is pinned left out of them."""

    def __init__(self) -> None:
        self._pins: dict[int, tuple[str, Any]] = {}

    def pin(self, token: str, value: Any) -> None:
        """From now on ``value`` is packed as ``token``."""
        self._pins[id(value)] = (token, value)

    def pack(self, value: Any) -> tuple[bytes, set[str]]:
        """The packed value, and the tokens of what is left out of it."""
        from cloudpickle import CloudPickler

        pins, met, out = self._pins, set[str](), io.BytesIO()

        class Pickler(CloudPickler):  # type: ignore[misc]
            def persistent_id(self, thing: Any) -> str | None:
                pinned = pins.get(id(thing))
                if pinned is None or pinned[1] is value:
                    return None
                met.add(pinned[0])
                return pinned[0]

        Pickler(out).dump(value)
        return out.getvalue(), met


class _Receiver(pickle.Unpickler):
    """Unpacks what the own engine's `Sender` packed; it came over the cluster's own wires."""

    def persistent_load(self, token: Any) -> Any:
        return _HELD[token]


def unpack(token: str, packed: bytes, pinned: Mapping[str, bytes]) -> Callable[..., Any]:
    """The function of a `Sender`, unpacked once in this process."""
    with _LOCK:
        known = _FUNCTIONS.get(token)
        if known is None:
            for name, value in pinned.items():
                if name not in _HELD:
                    _HELD[name] = _Receiver(io.BytesIO(value)).load()
            known = _FUNCTIONS[token] = _Receiver(io.BytesIO(packed)).load()
            while len(_FUNCTIONS) > FUNCTIONS:
                _FUNCTIONS.popitem(last=False)
        return known


def attach(make: Callable[..., Any], given: Sequence[Any], token: str, kept: Sequence[str]) -> Any:
    """This process's own reader of a table: the one that is here already, or a new one."""
    with _LOCK:
        if token not in _HELD:
            _HELD[token] = make(*given, token=token)
        return _HELD[token].attached(kept)


def forget(tokens: Sequence[str]) -> None:
    """Let go of what is held under these tokens, and of all functions."""
    with _LOCK:
        _FUNCTIONS.clear()
        for token in tokens:
            _HELD.pop(token, None)
