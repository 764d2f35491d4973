"""Bundles of every task, and servers of them: in the test's process, or as a user starts one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from common.quick import COLUMNS, settings, small_table, trained_on, write_bundle
from serve.running import Running

from gpupipe.serve.app import App
from gpupipe.serve.lines import Lines
from gpupipe.serve.metrics import Metrics
from gpupipe.serve.models import Deployment, answering, deploy, split_of
from gpupipe.serve.settings import ServeConfig, load_settings

TASKS = ("binary", "multiclass", "regression")
RECORDS = [
    {k: v.isoformat() + "Z" if k == "t" and v is not None else v for k, v in r.items()}
    for r in small_table(40, seed=3).select(list(COLUMNS)).to_pylist()
]
"""Rows as a client writes them."""


def make_bundle(folder: Path, task: str = "binary", seed: int = 0, **sections: Any) -> Path:
    write_bundle(trained_on(small_table(seed=seed), settings(task, **sections),
                            cache=folder.with_name("cache")), folder)
    return folder


@pytest.fixture(scope="session")
def bundles(tmp_path_factory) -> dict[str, Path]:
    """A bundle a task."""
    folder = tmp_path_factory.mktemp("served")
    return {task: make_bundle(folder / task, task) for task in TASKS}


@pytest.fixture(scope="session")
def others(tmp_path_factory) -> list[Path]:
    """Two more bundles of two classes, which score otherwise."""
    folder = tmp_path_factory.mktemp("others")
    return [make_bundle(folder / f"b{seed}", seed=seed) for seed in (5, 6)]


DEPLOYED: dict[tuple, Deployment] = {}
"""Models that were loaded for another test."""


class Client:
    """Requests to an `App`, each in a loop of its own."""

    def __init__(self, app: App) -> None:
        self.app = app

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
                return await client.request(method, path, **more)

        return asyncio.run(ask())

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.request("GET", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self.request("POST", path, **more)

    def predict(self, *records: dict, **headers: str) -> httpx.Response:
        return self.post("/predict", json={"records": list(records)}, headers=headers)


@pytest.fixture
def client() -> Iterator[Callable[..., Client]]:
    """Makes a client of a model with these settings."""
    apps: list[App] = []

    def make(model: Path | str, **settings: Any) -> Client:
        config: ServeConfig = load_settings(None, {"champion": str(model), "access_log": False,
                                                   **settings})
        key = (config.champion, config.name, str(config.challengers), config.salt)
        if key not in DEPLOYED:
            DEPLOYED[key] = deploy(answering(config), split_of(config))
        app = App(config, DEPLOYED[key], Metrics(), Lines())
        apps.append(app)
        return Client(app)

    yield make
    for app in apps:
        app.close()


@pytest.fixture(scope="session")
def shared(bundles) -> Iterator[Client]:
    """A client of the model of two classes, called ``m``, for all that leaves no trace."""
    config = load_settings(None, {"champion": str(bundles["binary"]), "access_log": False,
                                  "name": "m"})
    app = App(config, deploy(answering(config)), Metrics(), Lines())
    yield Client(app)
    app.close()


@pytest.fixture
def running(tmp_path) -> Iterator[Callable[..., Running]]:
    """Starts servers as ``gpupipe serve`` does; they are ended with the test."""
    started: list[Running] = []

    def start(*arguments: str, **more: Any) -> Running:
        started.append(Running(list(arguments), tmp_path, **more))
        return started[-1]

    yield start
    for server in started:
        server.end()


@contextmanager
def changed(path: Path, content: bytes) -> Iterator[None]:
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)
