"""Damage to what a bundle holds, with hashes that were made anew: what an attacker can do."""

from __future__ import annotations

import hashlib
import json
import random
from functools import cache
from pathlib import Path

import numpy as np

from gpupipe.bundle.store import CAPS
from gpupipe.codec import read_arrays, write_arrays


@cache
def _intact(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, bytes]]:
    members = {name: (folder / name).read_bytes() for name in CAPS}
    return read_arrays(members["arrays.npz"], 1 << 30), members


def damaged(folder: Path, rng: random.Random) -> Path:
    """The bundle in ``folder`` with a few bytes of an array, or of a text, changed."""
    arrays, members = _intact(folder)
    changed = dict(members)
    if rng.random() < 0.8:
        # The model's bytes are the longest; every array has its turn.
        name = rng.choice([n for n, a in arrays.items() if a.nbytes])
        if rng.random() < 0.5:
            name = max(arrays, key=lambda n: arrays[n].nbytes)
        array = arrays[name].copy()
        content = bytearray(array.tobytes())
        for _ in range(rng.choice([1, 1, 3])):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        changed["arrays.npz"] = write_arrays({**arrays, name: np.frombuffer(
            bytes(content), array.dtype).reshape(array.shape)})
    else:
        name = rng.choice(["bundle.json", "golden.json"])
        content = bytearray(members[name])
        content[rng.randrange(len(content))] = rng.choice(b'0123456789",:[]{}ax-')
        changed[name] = bytes(content)
    for name, content in changed.items():
        (folder / name).write_bytes(content)
    (folder / "hashes.json").write_text(json.dumps({
        name: {"sha256": hashlib.sha256(changed[name]).hexdigest(), "size": len(changed[name])}
        for name in CAPS if name != "hashes.json"}))
    return folder
