"""A registry in a bucket: an S3 that speaks HTTP, conditional puts and several processes.

The stand-in is moto's server; it is looked for on the path, or named by an environment variable.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest
from bundles import renamed

import gpupipe
from gpupipe.cli.outcome import call
from gpupipe.errors import ConfigError, DataError, EnvironmentFault
from gpupipe.registry import Registry, add, resolve
from gpupipe.registry.store import open_store

SERVER = "GPUPIPE_MOTO_SERVER"
"""The environment variable that names the program ``moto_server``."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of an S3 of our own."""
    program = os.environ.get(SERVER) or shutil.which("moto_server")
    if program is None:
        pytest.skip(f"moto's server is not installed here; {SERVER} may name its program")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    server = subprocess.Popen([program, "-H", "127.0.0.1", "-p", str(port)],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            if server.poll() is not None:
                pytest.skip(f"{program} does not run here")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/").close()
                break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def bucket(endpoint, tmp_path, monkeypatch) -> str:
    """The URL of an empty prefix in a bucket; the environment has what reaches it."""
    for name, value in {"AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "us-east-1",
                        "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
                        "GPUPIPE_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    made = urllib.request.Request(f"{endpoint}/models", method="PUT")
    urllib.request.urlopen(made).close()
    return f"s3://models/{tmp_path.name}/deep"


def test_objects_are_created_once(bucket):
    store = open_store(bucket)
    assert [store.create("a/b.json", c) for c in (b"1", b"1", b"2", b"22")] == [
        True, True, False, False]
    assert store.read("a/b.json", 10) == b"1" and store.read("a/c.json", 10) is None
    assert (store.names(""), store.names("a"), store.names("b")) == (["a"], ["b.json"], [])
    with pytest.raises(DataError, match="larger than the 0 bytes"):
        store.read("a/b.json", 0)


def test_a_registry_in_a_bucket_does_all_that_one_in_a_folder_does(bucket, bundle, variant, capfd):
    registry = Registry(bucket)
    with pytest.raises(DataError, match="no registry here"):
        registry.names()
    assert [add(registry, "churn", variant(n)).version for n in "aab"] == [1, 1, 2]
    registry.move("churn", "champion", 1, seen=None)
    found = resolve(f"{bucket}/churn@champion")
    assert (found.name, found.version, found.alias) == ("churn", 1, "champion")
    assert gpupipe.load(f"{bucket}/churn@2").info["name"] == "b"
    assert call(["models", "promote", f"{bucket}/churn@2", "champion", "--why", "ready"]) == 0
    assert call(["models", "verify", f"{bucket}/churn"]) == 0
    assert call(["models", "rollback", f"{bucket}/churn", "champion"]) == 0
    capfd.readouterr()
    assert call(["models", "show", f"{bucket}/churn", "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert shown["aliases"] == {"champion": 1} and len(shown["history"]) == 3
    assert call(["models", "list", bucket, "--json"]) == 0


MOVER = """
import sys
from gpupipe.registry import Conflict, Registry, stamp
registry, mine, won = Registry(sys.argv[1]), int(sys.argv[2]), 0
for i in range(15):
    seen = registry.alias("m", "champion")
    try:
        registry.move("m", "champion", mine, seen=seen, moved=stamp(str(i), str(mine)))
        won += 1
    except Conflict as conflict:
        assert conflict.now.number > (seen.number if seen else 0)
print(won)
"""


def test_of_promotions_at_once_from_several_processes_one_wins_each_step(bucket, variant):
    registry = Registry(bucket)
    for n in "ab":
        add(registry, "m", variant(n))
    movers = [subprocess.Popen([sys.executable, "-c", MOVER, bucket, str(n)], text=True,
                               stdout=subprocess.PIPE) for n in (1, 2)]
    won = [int(m.communicate(timeout=200)[0]) for m in movers]
    moves = registry.history("m", "champion")  # gaps and breaks in the chain are errors
    assert len(moves) == sum(won) and [m.returncode for m in movers] == [0, 0]
    assert [sum(e.version == n for e in moves) for n in (1, 2)] == won


def test_a_store_that_cannot_be_reached_or_is_none_is_named(monkeypatch, tmp_path):
    pytest.importorskip("obstore")
    for name, value in {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_REGION": "us-east-1",
                        "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(EnvironmentFault, match="s3://models/churn"):
        Registry("s3://models").alias("churn", "champion")
    with pytest.raises(ConfigError, match="nowhere://"):
        open_store("nowhere://models")


def test_without_obstore_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(EnvironmentFault, match=r"gpupipe\[registry\]"):
        resolve("s3://models/churn@champion")


def test_a_folder_s_url_is_that_folder(bundle, tmp_path):
    registry = Registry(f"file://{tmp_path}/models")
    add(registry, "m", renamed(bundle, tmp_path, "one"))
    assert resolve(f"{tmp_path}/models/m@1").path == resolve(f"file://{tmp_path}/models/m@1").path
