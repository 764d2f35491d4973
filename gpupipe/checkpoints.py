"""Checkpoints: what was computed once from the same data by the same rules is not computed again.

A checkpoint is one file, named after what it is and a digest of all that it follows from: the
data's fingerprint, the part of the pipeline file that matters, the version of the code. A run
that was killed finds the work of its predecessor there; so does a run whose pipeline file was
changed, as far as the change does not reach. Files are written to a temporary name and renamed,
so what is there is whole, and two runs that write the same one write the same thing.

    checkpoints = Checkpoints(Path("runs/.cache/steps")).given(data=fingerprint)
    mine = checkpoints.given(model=digest(params))
    mine.save("model", {"booster": b"..."})
    mine.load("model")       # None where there is none
    mine.missing("model")    # "changed: data"
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from gpupipe.codec import pack, unpack
from gpupipe.errors import DataError

SAVE_SECONDS = 10.0
"""Work that goes on for longer is saved about so often."""
CAP_BYTES = 4 << 30
"""The least recently used checkpoints are deleted above this."""
LIBRARIES = ("numpy", "pandas", "pyarrow", "scikit-learn", "xgboost")
CRASH = "GPUPIPE_CRASH_AT"
"""The environment variable with which tests kill a run at a named point (see `crash_point`)."""


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints in a folder; in none at all where ``folder`` is None.

    Attributes
    ----------
    about : what those that are asked for follow from: a digest by name (data, split, model).
    """

    folder: Path | None = None
    about: Mapping[str, str] = field(default_factory=dict)

    def given(self, **about: str) -> Checkpoints:
        """Those that follow from this as well."""
        return replace(self, about={**self.about, **about})

    def save(self, kind: str, value: Any) -> None:
        """Keep ``value``: JSON data, NumPy and Arrow arrays and bytes (see `codec.pack`)."""
        path = self._path(kind)
        if path is None:
            return
        arrays: dict[str, np.ndarray] = {}
        structure = pack(value, arrays)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_name(path)
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("about.json", json.dumps(self._all()))
            archive.writestr("value.json", json.dumps(structure))
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.ascontiguousarray(array),
                                              allow_pickle=False)
        crash_point(f"{kind} written")
        temporary.replace(path)
        crash_point(f"{kind} saved")

    def load(self, kind: str) -> Any:
        """What was saved, or None where nothing was, or it is damaged."""
        path = self._path(kind)
        if path is None:
            return None
        try:
            with zipfile.ZipFile(path) as archive:
                arrays = {}
                for info in archive.infolist():
                    if info.filename.endswith(".npy"):
                        with archive.open(info) as member:
                            arrays[info.filename.removesuffix(".npy")] = np.lib.format.read_array(
                                member, allow_pickle=False
                            )
                value = unpack(json.loads(archive.read("value.json")), arrays)
            os.utime(path)
            return value
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, DataError):
            with suppress(OSError):
                path.unlink()
            return None

    def has(self, kind: str) -> bool:
        """Whether there is one."""
        path = self._path(kind)
        return path is not None and path.exists()

    def drop(self, kind: str) -> None:
        """Forget one."""
        path = self._path(kind)
        if path is not None:
            path.unlink(missing_ok=True)

    def missing(self, kind: str) -> str:
        """Why there is none: what differs from the one that is most like it."""
        wanted, nearest = self._all(), None
        for path in self.folder.glob(f"{kind}-*.ckpt") if self.folder else ():
            try:
                with zipfile.ZipFile(path) as archive:
                    found = json.loads(archive.read("about.json"))
            except (OSError, ValueError, KeyError, zipfile.BadZipFile):
                continue
            changed = [name for name in wanted if found.get(name) != wanted[name]]
            if nearest is None or len(changed) < len(nearest):
                nearest = changed
        return "not run yet" if nearest is None else f"changed: {', '.join(nearest)}"

    def prune(self) -> None:
        """Delete what killed processes left, and the least recently used above `CAP_BYTES`."""
        if self.folder is None or not self.folder.is_dir():
            return
        sweep(self.folder)
        files = []
        for path in self.folder.glob("*.ckpt"):
            with suppress(OSError):
                status = path.stat()
                files.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= CAP_BYTES:
                return
            path.unlink(missing_ok=True)
            total -= size

    def _all(self) -> dict[str, str]:
        return {**self.about, "code": code_version()}

    def _path(self, kind: str) -> Path | None:
        return self.folder and self.folder / f"{kind}-{digest(self._all())[:32]}.ckpt"


NOWHERE = Checkpoints()
"""Nothing is saved, and nothing is found."""


def digest(value: Any) -> str:
    """SHA-256 of JSON data in its one canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def library_versions() -> dict[str, str]:
    """The versions of the libraries that numbers depend on, by distribution."""
    return {name: version(name) for name in LIBRARIES}


@cache
def code_version() -> str:
    """A digest of this package's source and of the versions of the libraries under it."""
    found = hashlib.sha256(json.dumps(library_versions()).encode())
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        found.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def temporary_name(path: Path) -> Path:
    """A new name beside ``path`` for what is to become it, which tells whose it is."""
    return path.with_name(f".{path.name}.{_here()}.{os.getpid()}.{next(_NUMBER)}.tmp")


_NUMBER = count()


def _here() -> str:
    """This machine's name, without dots."""
    return socket.gethostname().replace(".", "-")


def sweep(folder: Path) -> None:
    """Delete the temporary files and folders of processes of this machine that are gone."""
    for path in folder.glob(".*.tmp"):
        *_, host, process, _number, _tmp = ["", "", "", "", *path.name.split(".")][-4:]
        if host != _here() or not process.isdigit() or int(process) == os.getpid():
            continue
        try:
            os.kill(int(process), 0)
        except ProcessLookupError:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        except OSError:
            continue


def crash_point(name: str) -> None:
    """Die here, as by the power cord, where `CRASH` names this point: tests only."""
    if os.environ.get(CRASH) == name:
        os.kill(os.getpid(), signal.SIGKILL)
