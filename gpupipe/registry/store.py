"""Where a registry lies: a folder, or an object store. Both do the same four things.

Nothing is ever overwritten or deleted. The one primitive that all safety rests on is `create`: it
makes an object whole, or finds that there is one already, in one indivisible act (POSIX ``link``
fails where the name is taken; an object store is asked with ``If-None-Match: *``).
"""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from gpupipe.checkpoints import sweep, temporary_name
from gpupipe.errors import ConfigError, DataError, EnvironmentFault

TIMEOUT = "30m"
"""How long one request to an object store may take: a member of a bundle is one request."""
ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT")
PARTS = ".parts"
"""The folder, in that of a registry, of files that are being written."""


class Store(Protocol):
    """Objects under keys: names with ``/`` between them, as `names` lets them through."""

    @property
    def url(self) -> str:
        """What a user calls it."""
        ...

    def read(self, key: str, cap: int) -> bytes | None:
        """An object; None where there is none. DataError where it is larger than ``cap`` bytes."""
        ...

    def create(self, key: str, content: bytes) -> bool:
        """Make an object. False where there is another one already, which stays as it is.

        One with the very same content is as good as made here: so a request that was answered
        into the void may be made again.
        """
        ...

    def names(self, key: str) -> list[str]:
        """The names right under a key, sorted: of objects and of what holds some."""
        ...

    def local(self, key: str) -> Path | None:
        """The folder that holds the objects under ``key``; None where they are elsewhere."""
        ...


class FolderStore:
    """A folder on this machine or on a file system that several machines share."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    @property
    def url(self) -> str:
        return str(self.root)

    def read(self, key: str, cap: int) -> bytes | None:
        path = self._path(key)
        try:
            handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
        except (FileNotFoundError, NotADirectoryError):
            return None
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"{path} is not a plain file")
            _fits(str(path), status.st_size, cap)
            content = file.read(cap + 1)
            _fits(str(path), len(content), cap)
            return content

    def create(self, key: str, content: bytes) -> bool:
        path, parts = self._path(key), self.root / PARTS
        parts.mkdir(parents=True, exist_ok=True)
        sweep(parts)
        temporary = temporary_name(parts / uuid.uuid4().hex)
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o444)
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(temporary, path)
            except FileExistsError:
                return path.lstat().st_size == len(content) and self.read(
                    key, len(content)) == content
            except OSError as error:
                raise EnvironmentFault(
                    f"{path} cannot be made in one step: {error.strerror}",
                    hint="a registry's folder needs a file system with hard links, or an object "
                    "store (s3://...)") from None
            _synced(path.parent)
            _synced(path.parent.parent)  # which may have been made just now
            return True
        finally:
            temporary.unlink(missing_ok=True)

    def names(self, key: str) -> list[str]:
        path = self._path(key)
        try:
            return sorted(p.name for p in path.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []

    def local(self, key: str) -> Path | None:
        return self._path(key)

    def _path(self, key: str) -> Path:
        """The file of a key. DataError where a link leads there: it may lead anywhere."""
        path = self.root
        for part in key.split("/") if key else ():
            path = path / part
            if path.is_symlink():
                raise DataError(f"{path} is a symbolic link", hint="a registry has none: copy what "
                                "it points at, or add the bundle again")
        return path


class ObjectStore:
    """A bucket, or what lies in it under a prefix: S3 and what speaks like it, GCS, Azure."""

    def __init__(self, store: Any, url: str) -> None:
        self.store, self._url = store, url

    @property
    def url(self) -> str:
        return self._url

    def read(self, key: str, cap: int) -> bytes | None:
        import obstore

        with self._told(key):
            try:
                found = obstore.get(self.store, key)
            except FileNotFoundError:
                return None
            _fits(f"{self.url}/{key}", found.meta["size"], cap)
            return bytes(found.bytes())

    def create(self, key: str, content: bytes) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        for _ in range(10):
            with self._told(key):
                try:
                    obstore.put(self.store, key, content, mode="create", use_multipart=False)
                    return True
                except (AlreadyExistsError, PreconditionError):
                    there = self._size(key)
            if there is not None:
                return there == len(content) and self.read(key, there) == content
            # "Taken" and yet not there: another request for the same key was under way, and failed.
        raise EnvironmentFault(f"{self.url}/{key} is neither there nor can it be made",
                               hint="try again")

    def names(self, key: str) -> list[str]:
        import obstore

        with self._told(key):
            found = obstore.list_with_delimiter(self.store, key or None)
        paths = [*found["common_prefixes"], *(o["path"] for o in found["objects"])]
        return sorted(p.rstrip("/").rpartition("/")[2] for p in paths)

    def local(self, key: str) -> Path | None:
        return None

    def _size(self, key: str) -> int | None:
        import obstore

        try:
            return int(obstore.head(self.store, key)["size"])
        except FileNotFoundError:
            return None

    @contextmanager
    def _told(self, key: str) -> Iterator[None]:
        """What goes wrong on the way to the store is an EnvironmentFault that names it."""
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError) as error:
            told = str(error).partition("\n")[0]
            raise EnvironmentFault(
                f"{self.url}/{key}: {told}",
                hint="the store's address and credentials come from the environment: for S3 "
                "AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL",
            ) from None


def open_store(root: str | Path) -> Store:
    """The store at a path or a URL (``s3://bucket/prefix``, ``gs://``, ``az://``, ``file://``)."""
    text = str(root)
    scheme, sign, rest = text.partition("://")
    if not sign:
        return FolderStore(Path(root))
    if scheme == "file":
        return FolderStore(Path(rest))
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError as error:
        raise EnvironmentFault(f"a registry at {scheme}:// needs obstore, which cannot be imported "
                               f"here: {error}", hint="pip install 'gpupipe[registry]'") from None
    # An endpoint that the user gave as http:// is meant so; nothing else goes out in the clear.
    plain = any(os.environ.get(n, "").startswith("http://") for n in ENDPOINTS) or os.environ.get(
        "AWS_ALLOW_HTTP", "").lower() in ("true", "1")
    try:
        store = from_url(text, client_options={"timeout": TIMEOUT, "allow_http": plain})
        return ObjectStore(store, text.rstrip("/"))
    except (BaseError, ValueError) as error:
        raise ConfigError(f"no store has this address: {str(error).partition(chr(10))[0]}",
                          where=text, hint="a folder, or s3://BUCKET/PREFIX") from None


def _fits(what: str, size: int, cap: int) -> None:
    if size > cap:
        raise DataError(f"{what} is larger than the {cap:,} bytes allowed")


def _synced(folder: Path) -> None:
    """The folder's entries are on the disk: a version outlives a power cut once it is told of."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
