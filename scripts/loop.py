"""The whole life of a model in a minute: trained, served, watched, retrained, tested, replaced.

    python scripts/loop.py                       # in a folder of its own, which is kept
    python scripts/loop.py --folder here --customers 3000

Customers of a made-up streaming service come in. First they are like those that the model learned
from; then a new plan is sold and people behave otherwise. What happens, step by step:

    train -> register, promote -> serve -> log -> monitor -> alert to a webhook -> labels come late
    -> retrain -> A/B experiment by the server's split of traffic -> analyse -> promote

The server is a process of its own and the webhook a real one, whose first answer is 503. Lines that
begin with $ are the commands that do the same.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import yaml

import gpupipe
from gpupipe.config import load_config
from gpupipe.experiment import workflow as experiments
from gpupipe.monitor import monitor, write_dashboard
from gpupipe.registry import Registry, add, resolve, stamp
from gpupipe.registry.promotion import promote
from gpupipe.retrain import retrain

TARGET = "churned"
OFFER, WORTH = 5.0, 40.0
"""What an offer costs, and what a customer is worth who stays because of one."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="where everything goes; default: a new one")
    parser.add_argument("--customers", type=int, default=1500, help="of each act; 1000 or more")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.customers < 1000:
        parser.error("--customers: with fewer than 1000 there is too little to tell")
    folder = given.folder or Path(tempfile.mkdtemp(prefix="gpupipe-loop-"))
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    Loop(folder.absolute(), given.customers, np.random.default_rng(given.seed)).run()
    say(f"\nall of it took {time.monotonic() - began:.0f} s and lies in {folder}")


def say(text: str) -> None:
    print(text, flush=True)


def customers(n: int, rng: np.random.Generator, later: bool = False) -> list[dict[str, Any]]:
    """Customers, with what they will do: ``later``, after the new plan came."""
    plans = ["basic", "premium", "family"] if later else ["basic", "premium"]
    plan = rng.choice(plans, n, p=[0.3, 0.3, 0.4] if later else [0.6, 0.4])
    hours = rng.gamma(3, 4 if later else 2.5, n).round(1)
    calls, fee = rng.poisson(1, n), rng.normal(12, 3, n).round(2)
    if later:  # heavy watchers now leave, once they have seen it all
        logit = -1.5 + 0.22 * (hours - 12) + 1.5 * (plan == "family") + 0.1 * calls
    else:
        logit = -0.2 + 0.9 * calls - 0.25 * (hours - 4) + 0.05 * (fee - 12)
    churned = rng.random(n) < 1 / (1 + np.exp(-logit))
    return [{"plan": str(p), "watch_hours": float(h), "support_calls": int(c),
             "monthly_fee": float(f), TARGET: "yes" if y else "no"}
            for p, h, c, f, y in zip(plan, hours, calls, fee, churned, strict=True)]


class Loop:
    """One life; the steps in order are `run`."""

    def __init__(self, folder: Path, n: int, rng: np.random.Generator) -> None:
        self.folder, self.n, self.rng = folder, n, rng
        self.models, self.log, self.history = (folder / d for d in ("models", "log", "watched"))
        self.pipeline = folder / "pipeline.yaml"
        self.labels: list[dict[str, Any]] = []
        self.sent = 0

    def run(self) -> None:
        with receiver() as (url, got):
            self.train(url)
            with self.server({"champion": self.reference, "log": self.logged(self.log)}) as port:
                self.calm(port)
                self.drifted(port, got)
            self.retrain()
            self.experiment()
            self.replaced()

    @property
    def reference(self) -> str:
        return f"{self.models}/churn@champion"

    def logged(self, folder: Path) -> dict[str, Any]:
        return {"path": str(folder), "features": True, "every": "300ms"}

    # Acts --------------------------------------------------------------------------------------

    def train(self, url: str) -> None:
        say("1. A model is trained, registered, and promoted to champion")
        rows = customers(2 * self.n, self.rng)
        pq.write_table(pa.Table.from_pylist(rows), self.folder / "old.parquet")
        self.pipeline.write_text(yaml.safe_dump({
            "data": {"source": "old.parquet", "target": TARGET, "positive": "yes"},
            "split": {"holdout": 0.25, "folds": 3},
            "model": {"kind": "xgboost", "params": {"n_estimators": 60, "max_depth": 3}},
            "evaluate": {"metrics": ["roc_auc", "log_loss"], "resamples": 50, "baselines": []},
            "explain": False, "engine": {"workers": 1},
            "monitor": {"window": f"{self.n // 2}rows", "metrics": ["roc_auc"],
                        "sinks": [{"webhook": {"url": url}}, {"file": "alerts.jsonl"}]},
        }, sort_keys=False))
        say("   $ gpupipe run pipeline.yaml")
        done = gpupipe.run(load_config(self.pipeline), runs=self.folder / "runs")
        say(f"   roc_auc on the holdout: {told(done.metrics['roc_auc'])}")
        say("   $ gpupipe models add models/churn runs/latest")
        registry = Registry(self.models)
        version = add(registry, "churn", done.run, added=stamp("the first one"))
        say("   $ gpupipe models promote models/churn@1")
        promote(registry, "churn", version.version, moved=stamp("the first one"))

    def calm(self, port: int) -> None:
        say(f"\n2. {self.n:,} customers come in, like those before; the log is watched")
        say("   $ gpupipe serve --config serve.yaml")
        self.ask(port, customers(self.n, self.rng))
        self.watched()

    def drifted(self, port: int, got: list[dict[str, Any]]) -> None:
        say(f"\n3. A new plan is sold: {self.n:,} customers who behave otherwise")
        self.ask(port, customers(self.n, self.rng, later=True))
        self.watched()
        alerts = json.loads(got[-1]["body"])["alerts"]
        answers = " then ".join(str(g["answer"]) for g in got)
        say(f"   the webhook got {len(alerts)} alerts (it answered {answers}):")
        for alert in alerts:
            say(f"     {alert['labels']['severity']}: {alert['annotations']['summary']}")
        say("\n4. Their labels come: who left, and who stayed")
        pq.write_table(pa.Table.from_pylist(self.labels), self.folder / "labels.parquet")
        self.watched(labels=self.folder / "labels.parquet")
        for alert in json.loads(got[-1]["body"])["alerts"]:
            say(f"     {alert['labels']['severity']}: {alert['annotations']['summary']}")
        write_dashboard(self.history, self.folder / "dashboard.html")
        say("   $ gpupipe dashboard watched        -> dashboard.html")

    def retrain(self) -> None:
        say("\n5. The alert asks for a retraining, on what was logged since, with its labels")
        log = ds.dataset(self.log, format="parquet").to_table().sort_by("time").slice(self.n)
        features = [c for c in log.column_names if c.startswith("feature:")]
        table = log.select(["prediction_id", *features]).join(
            pa.Table.from_pylist(self.labels), "prediction_id", join_type="inner")
        table = table.rename_columns([c.removeprefix("feature:") for c in table.column_names])
        pq.write_table(table.drop_columns("prediction_id"), self.folder / "fresh.parquet")
        say("   $ gpupipe retrain pipeline.yaml --verdict watched/verdict.json --registry "
            "models/churn --data fresh.parquet")
        how: dict[str, Any] = {
            "verdict": self.history / "verdict.json", "registry": str(self.models / "churn"),
            "source": str(self.folder / "fresh.parquet"), "runs": self.folder / "runs"}
        done = retrain(load_config(self.pipeline), **how)
        say(f"   {done.why}: version {done.version} is challenger")
        for gate in (done.gates or {}).get("gates", ()):
            say(f"     gate {gate['name']}: {gate['found']}: "
                f"{ {True: 'passed', False: 'NOT passed', None: 'not asked'}[gate['passed']]}")
        say(f"   again: {retrain(load_config(self.pipeline), **how).decision}")

    def experiment(self) -> None:
        say(f"\n6. Is it really better? An experiment on {self.n:,} customers, half and half")
        (self.folder / "experiment.yaml").write_text(yaml.safe_dump({
            "name": "new-churn-model", "unit": "unit_id", "arm": "variant",
            "hypothesis": "The retrained model makes better offers.",
            "arms": {"champion": 0.5, "challenger": 0.5}, "where": {"shadow": False},
            "primary": {"name": "value", "effect": 3.0, "baseline": 0.0, "deviation": 16.0},
        }, sort_keys=False))
        say("   $ gpupipe experiment plan experiment.yaml --output plan.json")
        plan = self.folder / "plan.json"
        planned = experiments.plan(self.folder / "experiment.yaml", output=plan)
        say(f"   registered under {planned['hash'][:12]}")
        log = self.folder / "experiment-log"
        settings = {
            "champion": self.reference, "unit": "customer", "salt": "new-churn-model",
            "challengers": [{"model": f"{self.models}/churn@challenger", "share": 0.5}],
            "log": self.logged(log)}
        rows = [{"customer": f"c{i}", **c} for i, c in enumerate(
            customers(self.n, self.rng, later=True))]
        with self.server(settings) as port:
            answers = list(asked(port, [[r] for r in rows]))
            written(log, self.n)
        outcomes = [{"prediction_id": a["id"], "value": value_of(r[TARGET], a["prediction"])}
                    for r, a in zip(rows, answers, strict=True)]
        pq.write_table(pa.Table.from_pylist(outcomes), self.folder / "outcomes.parquet")
        say("   $ gpupipe experiment analyse experiment-log --plan plan.json --outcomes "
            "outcomes.parquet --on prediction_id --page verdict.html")
        found = experiments.analyse(
            str(log), plan, outcomes=str(self.folder / "outcomes.parquet"), on="prediction_id",
            page=self.folder / "verdict.html")
        self.verdict = found["verdicts"]["challenger"]
        arms = ", ".join(f"{a['units']:,} in {a['name']}" for a in found["arms"])
        say(f"   units: {arms}")
        effect = found["metrics"][0]["effects"][0]["difference"]
        say(f"   value of a customer: {effect['value']:+.2f} ({effect['low']:+.2f} to "
            f"{effect['high']:+.2f}): {self.verdict['state']}")

    def replaced(self) -> None:
        say("\n7. The winner takes over while the server runs")
        if self.verdict["state"] != "better":
            say("   it is not shown to be better: the champion stays")
            sys.exit(4)
        settings = {"champion": self.reference, "poll": "200ms"}
        with self.server(settings) as port:
            before = version_of(port)
            say("   $ gpupipe models promote models/churn@challenger --expect 1")
            registry = Registry(self.models)
            number = registry.number_of("churn", "challenger")
            promote(registry, "churn", number, expect=1,
                    moved=stamp("the experiment new-churn-model: better"))
            until = time.monotonic() + 30
            while version_of(port) == before and time.monotonic() < until:
                time.sleep(0.05)
            say(f"   the server answered with version {before}, and now with {version_of(port)}")
        for event in Registry(self.models).history("churn"):
            say(f"     {event.alias}: {event.before or '-'} -> {event.version}  {event.moved.why}")

    # Below -------------------------------------------------------------------------------------

    def ask(self, port: int, rows: list[dict[str, Any]]) -> None:
        """Send customers a hundred at a time, and keep what they will do for later."""
        answers = asked(port, [rows[i:i + 100] for i in range(0, len(rows), 100)])
        self.labels += [{"prediction_id": a["id"], TARGET: r[TARGET]}
                        for r, a in zip(rows, answers, strict=True)]
        self.sent += len(rows)
        written(self.log, self.sent)

    def watched(self, labels: Path | None = None) -> None:
        more = f" --labels {labels.name}" if labels else ""
        say(f"   $ gpupipe monitor models/churn@champion log --history watched "
            f"--rules pipeline.yaml{more}")
        found = monitor(resolve(self.reference).path, str(self.log), labels=labels and str(labels),
                        history=self.history, rules=load_config(self.pipeline))
        for window in found.windows:
            own = found.quality_of(window)
            score = own.get("scores", {}).get("roc_auc")
            say(f"   window {window.start:>5} to {window.end:>5}: {found.state_of(window)}"
                + (f", roc_auc {told(score)}" if score else ""))
        say(f"   exit code {found.code}")

    @contextmanager
    def server(self, settings: dict[str, Any]) -> Iterator[int]:
        """``gpupipe serve`` in a process of its own; its port."""
        path = self.folder / "serve.yaml"
        path.write_text(yaml.safe_dump({**settings, "port": 0, "access_log": False}))
        lines = self.folder / "server.log"
        with lines.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "gpupipe.cli", "serve", "--config", str(path)],
                stderr=errors, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
        try:
            yield int(started(process, lines).rpartition(":")[2])
        finally:
            process.terminate()
            process.wait(30)


def started(process: subprocess.Popen[bytes], lines: Path) -> str:
    """The address of a server, once it answers."""
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        for line in lines.read_text().splitlines():
            if line.startswith("{") and json.loads(line)["event"] == "serving":
                return str(json.loads(line)["url"])
        time.sleep(0.05)
    raise SystemExit(f"the server did not start: {lines.read_text()}")


def asked(port: int, requests: list[list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Predictions, over one connection; what a customer will do is not sent."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for rows in requests:
        body = {"records": [{k: v for k, v in r.items() if k != TARGET} for r in rows]}
        connection.request("POST", "/predict", json.dumps(body),
                           {"Content-Type": "application/json"})
        answer = connection.getresponse()
        told = json.loads(answer.read())
        if answer.status != 200:
            raise SystemExit(f"the server refused a request: {told}")
        yield from told["predictions"]
    connection.close()


def version_of(port: int) -> str:
    """The version that answers now."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/health")
    models = json.loads(connection.getresponse().read())["models"]
    connection.close()
    return str(next(m["version"] for m in models if m["variant"] == "champion"))


def written(log: Path, rows: int) -> None:
    """Wait until the prediction log has so many rows."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if log.is_dir() and ds.dataset(log, format="parquet").count_rows() >= rows:
            return
        time.sleep(0.05)
    raise SystemExit(f"the prediction log {log} has fewer than {rows:,} rows")


def value_of(left: str, predicted: str) -> float:
    """What a customer brought: an offer costs something, and keeps who would have left."""
    return (WORTH if left == "yes" else 0.0) - OFFER if predicted == "yes" else 0.0


def told(score: dict[str, Any]) -> str:
    return f"{score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f})"


@contextmanager
def receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A webhook: its address, and what it got. It is busy at first."""
    got: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            got.append({"body": body, "answer": 200 if got else 503})
            self.send_response(got[-1]["answer"])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/alerts", got
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    main()
