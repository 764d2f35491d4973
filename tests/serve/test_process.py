"""A server in a process of its own: it ends, reloads and restarts without losing a request."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serve.conftest import RECORDS
from serve.loading import Load, request_of
from serve.running import Running

from gpupipe.errors import ConfigError, DataError, EnvironmentFault
from gpupipe.registry import Registry, add
from gpupipe.serve import load_settings, serve

SLOW = os.environ.get("GPUPIPE_SLOW")
RELOADS = 100 if SLOW else 10


def metric(server: Running, name: str, **labels: str) -> float:
    text = server.get("/metrics").text
    return sum(s.value for f in text_string_to_metric_families(text) for s in f.samples
               if s.name == name and labels.items() <= s.labels.items())


def until(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.05)


@pytest.mark.parametrize("workers", [1, 2] if SLOW else [1])
def test_sigterm_under_load_loses_no_request(workers, bundles, running):
    server = running(str(bundles["binary"]), "--workers", str(workers))
    with Load(server.port, RECORDS[0]) as load:
        until(lambda: load.account.statuses[200] > 100)
        server.signal(signal.SIGTERM)
        until(lambda: load.account.turned_away > 0)
        assert server.process.wait(30) == 0
    account = load.account
    assert set(account.statuses) == {200} and not account.lost and not account.mixed


def test_after_sigterm_ready_fails_and_answers_close_their_connection(bundles, running, tmp_path):
    settings = tmp_path / "serve.yaml"
    settings.write_text(f"champion: {bundles['binary']}\ndrain: 3s\n")
    server = running("--config", str(settings))
    with httpx.Client(base_url=server.url) as client:
        assert client.get("/health/ready").status_code == 200
        server.signal(signal.SIGTERM)
        until(lambda: client.get("/health/ready").status_code == 503)
        assert client.get("/health/live").status_code == 200
        answer = server.predict(RECORDS[0])
        assert answer.status_code == 200 and answer.headers["connection"] == "close"
        server.signal(signal.SIGTERM)  # a second one does not wait
        assert server.process.wait(2.5) == 0


def place(source: Path, folder: Path) -> None:
    """Put a bundle in the place of another, as a deployment does."""
    new = folder.with_name(f".{folder.name}.new")
    shutil.copytree(source, new)
    if folder.exists():
        folder.rename(folder.with_name(f".{folder.name}.old"))
    new.rename(folder)
    shutil.rmtree(folder.with_name(f".{folder.name}.old"), ignore_errors=True)


def test_reloads_under_load_fail_no_request_and_mix_no_versions(bundles, others, running, tmp_path):
    registry = Registry(tmp_path / "models")
    for folder in (bundles["binary"], *others):
        add(registry, "churn", folder)
    registry.move("churn", "champion", 1, seen=None)
    settings = tmp_path / "serve.yaml"
    settings.write_text("champion: models/churn@champion\npoll: 60s\n")
    server = running("--config", str(settings))
    with Load(server.port, RECORDS[0], clients=4) as load:
        for n in range(1, RELOADS + 1):
            before = sum(load.account.versions.values())
            if n % 3 == 0:
                registry.rollback("churn", "champion")
            else:
                now = registry.alias("churn", "champion")
                registry.move("churn", "champion", now.version % 3 + 1, seen=now)
            server.signal(signal.SIGHUP)
            until(lambda n=n: sum(r["event"] == "reloaded" for r in server.lines()) >= n)
            until(lambda b=before: sum(load.account.versions.values()) > b + 4)
    account = load.account
    assert set(account.statuses) == {200} and not account.lost and not account.mixed
    assert set(account.versions) == {"1", "2", "3"}
    assert server.predict(RECORDS[0]).json()["model"] == "churn"
    assert metric(server, "gpupipe_reloads_total", outcome="loaded") == RELOADS


def test_a_bad_version_leaves_the_old_one_serving_and_says_so(bundles, others, running, tmp_path):
    folder = tmp_path / "model"
    place(bundles["binary"], folder)
    settings = tmp_path / "serve.yaml"
    settings.write_text("champion: model\npoll: 200ms\n")
    server = running("--config", str(settings))
    version = server.predict(RECORDS[0]).json()["version"]
    bad = tmp_path / "bad"
    shutil.copytree(others[0], bad)
    golden = json.loads((bad / "golden.json").read_text())
    (bad / "golden.json").write_text(json.dumps(golden) + " ")
    (bad / "hashes.json").write_text((bad / "hashes.json").read_text() + " ")
    place(bad, folder)
    line = server.line("reload_refused")
    assert "golden.json was changed" in line["error"] and line["serving"] == version
    assert server.predict(RECORDS[0]).json()["version"] == version
    assert server.get("/health").json()["status"] == "degraded"
    time.sleep(0.6)  # it is told once, and not at every look
    assert metric(server, "gpupipe_reloads_total", outcome="refused") == 1
    place(others[0], folder)
    server.line("reloaded")
    assert server.get("/health").json()["status"] == "ok"
    assert server.predict(RECORDS[0]).json()["version"] != version


def test_two_workers_answer_on_one_port_and_metrics_are_of_both(
    bundles, others, running, tmp_path
):
    folder, keys = tmp_path / "model", tmp_path / "keys"
    place(bundles["binary"], folder)
    keys.write_text("0123456789abcdef\n")
    settings = tmp_path / "serve.yaml"
    settings.write_text("champion: model\npoll: 60s\nworkers: 2\napi_keys: keys\n")
    server = running("--config", str(settings), headers={"x-api-key": "0123456789abcdef"})
    until(lambda: sum(r["event"] == "serving" for r in server.lines()) == 2)
    with Load(server.port, RECORDS[0], clients=16, key="0123456789abcdef") as load:
        until(lambda: load.account.statuses[200] > 200)
    sent = sum(load.account.statuses.values())
    until(lambda: metric(server, "gpupipe_requests_total", route="/predict") == sent)
    until(lambda: len({r["pid"] for r in server.lines() if r.get("path") == "/predict"}) == 2)
    assert metric(server, "gpupipe_worker_info") == 2
    # a reload that one of them is asked for reaches both
    place(others[0], folder)
    assert server.post("/admin/reload").status_code == 202
    until(lambda: sum(r["event"] == "reloaded" for r in server.lines()) == 2)
    # SIGHUP reads the keys again; a file without keys changes nothing
    keys.write_text("")
    server.signal(signal.SIGHUP)
    until(lambda: sum(r["event"] == "keys_refused" for r in server.lines()) == 2)
    keys.write_text("another-key-of-16-characters\n")
    server.signal(signal.SIGHUP)
    until(lambda: server.get("/metrics").status_code == 401)
    server.headers = {"x-api-key": "another-key-of-16-characters"}
    until(lambda: all(server.get("/metrics").status_code == 200 for _ in range(6)))
    # a worker that ends is started again, and what it counted is not forgotten
    worker = next(r["pid"] for r in server.lines() if r["event"] == "serving")
    os.kill(worker, signal.SIGKILL)
    server.line("process_ended")
    until(lambda: sum(r["event"] == "serving" for r in server.lines()) == 3)
    assert server.predict(RECORDS[0]).status_code == 200
    assert metric(server, "gpupipe_requests_total", route="/predict") > sent - 2


@pytest.fixture
def damaged(bundles, tmp_path) -> Path:
    folder = tmp_path / "damaged"
    shutil.copytree(bundles["binary"], folder)
    (folder / "arrays.npz").write_bytes((folder / "arrays.npz").read_bytes() + b" ")
    return folder


@pytest.mark.parametrize(("flags", "error", "words"), [
    ({"champion": "absent"}, ConfigError, "no such run or bundle"),
    ({}, ConfigError, "no model to serve"),
    ({"champion": "{bundle}", "workers": 0}, ConfigError, "workers"),
    ({"champion": "{bundle}", "api_keys": "absent"}, ConfigError, "API keys"),
    ({"champion": "{bundle}", "tls_cert": "absent"}, ConfigError, "certificate"),
    ({"champion": "{bundle}", "tls_cert": "absent", "tls_key": "absent"}, ConfigError, "absent"),
    ({"champion": "{bundle}", "host": "256.0.0.1"}, EnvironmentFault, "cannot listen"),
    ({"champion": "{damaged}"}, DataError, "arrays.npz was changed"),
])
def test_what_cannot_begin_says_why(flags, error, words, bundles, damaged):
    known = {"bundle": str(bundles["binary"]), "damaged": str(damaged)}
    flags = {k: v.format(**known) if isinstance(v, str) else v for k, v in flags.items()}
    with pytest.raises(error) as told:
        serve(load_settings(None, {"port": 0, **flags}))
    assert words in str(told.value)


def test_workers_that_cannot_begin_end_their_parent(damaged, running):
    server = running(str(damaged), "--workers", "2", wait=False)
    assert server.process.wait(30) == 3
    text = server.errors.read_text()
    assert "arrays.npz was changed" in text and "Traceback" not in text


def test_a_port_that_is_taken_is_named(bundles):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        for workers in (1, 2):
            with pytest.raises(EnvironmentFault, match=f"cannot listen on 127.0.0.1:{port}"):
                serve(load_settings(None, {"champion": str(bundles["binary"]), "port": port,
                                           "workers": workers}))


def test_tls(bundles, running, tmp_path):
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key.pem", "-out",
         "cert.pem", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=IP:127.0.0.1"], cwd=tmp_path, capture_output=True, check=False)
    if made.returncode:
        pytest.skip("openssl cannot make a certificate here")
    server = running(str(bundles["binary"]), "--tls-cert", str(tmp_path / "cert.pem"),
                     "--tls-key", str(tmp_path / "key.pem"))
    assert server.url.startswith("https://")
    context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
    assert httpx.get(server.url + "/health/live", verify=context).status_code == 200


# Clients that misbehave ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strict(bundles, tmp_path_factory):
    folder = tmp_path_factory.mktemp("strict")
    settings = folder / "serve.yaml"
    settings.write_text(
        f"champion: {bundles['binary']}\nlimits: {{header_timeout: 1s, body_timeout: 1s, "
        "body: 64kB, connections: 40, buffered: 256kB}\n")
    server = Running(["--config", str(settings)], folder)
    yield server
    assert server.end() == 0


def talk(server: Running, *pieces: bytes, pause: float = 0, seconds: float = 6) -> bytes:
    """What comes back until the server closes, or nothing comes for a second."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=seconds) as sock:
        found = b""
        try:
            for piece in pieces:
                sock.sendall(piece)
                time.sleep(pause)
            sock.settimeout(3)
            while chunk := sock.recv(65536):
                found += chunk
        except (TimeoutError, ConnectionError):
            pass  # it was kept open, as it may be
        return found


GOOD = request_of(RECORDS[0])
HEAD = b"POST /predict HTTP/1.1\r\nhost: t\r\n"


MISBEHAVING: list[tuple[list[bytes], list[int]]] = [
    ([b""], [408]),
    ([b"POST /predict HTT"], [408]),
    ([HEAD, b"x: y\r\n"], [408]),
    ([HEAD + b"content-length: 100\r\n\r\n{"], [408]),
    ([HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nabc"], [408]),
    ([HEAD + b"content-length: 99999999\r\n\r\n{"], [413]),
    ([HEAD + b"content-length: -1\r\n\r\n"], [400]),
    ([HEAD + b"content-length: 1e3\r\n\r\n"], [400]),
    ([HEAD + b"content-length: 1\r\ncontent-length: 2\r\n\r\n{}"], [400]),
    ([HEAD + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"], [400]),
    ([HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n"], [400]),
    ([HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"4000\r\n" + b"x" * 0x4000 + b"\r\n"] +
     [b"4000\r\n" + b"x" * 0x4000 + b"\r\n"] * 8, [413]),
    ([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50], [400]),
    ([b"GET / HTTP/9.9\r\n\r\n"], [400]),
    ([b"GET http://[::1 HTTP/1.1\r\nhost: t\r\n\r\n"], [400]),
    ([b"GET /\xff\xfe HTTP/1.1\r\nhost: t\r\n\r\n"], [400]),
    ([b"GET /%ff%00%2e%2e HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"], [404]),
    ([b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: t\r\n\r\n"], [400]),
    ([b"GET / HTTP/1.1\r\n" + b"".join(b"h%d: x\r\n" % i for i in range(300)) + b"\r\n"], [400]),
    ([b"GET / HTTP/1.1\r\nx: "] + [b"y" * 60_000] * 4, [431]),
    ([HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\n"] +
     [b"t%d: x\r\n" % i for i in range(400)], [400]),
    ([GOOD + GOOD + GOOD[:-1] + b"x"], [200, 200, 422]),
    ([b"GET /health/live HTTP/1.1\r\nhost: t\r\n\r\n" * 50], [200] * 50),
    ([b"GET /health/live HTTP/1.0\r\n\r\n"], [200]),
    ([HEAD + b"upgrade: websocket\r\nconnection: upgrade\r\n\r\n"], [422]),
    ([HEAD + b"expect: 100-continue\r\ncontent-length: 99999999\r\n\r\n"], [413]),
]


def test_clients_that_misbehave_are_answered_and_closed(strict):
    with ThreadPoolExecutor(len(MISBEHAVING)) as pool:
        found = list(pool.map(lambda case: talk(strict, *case[0]), MISBEHAVING))
    for (pieces, statuses), text in zip(MISBEHAVING, found, strict=True):
        got = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", text)]
        assert got == statuses, (pieces[0][:80], text[:300])


def test_a_body_in_pieces_is_answered(strict):
    head, _, body = GOOD.partition(b"\r\n\r\n")
    head += b"\r\nconnection: close"
    pieces = [head + b"\r\n\r\n", body[:10], body[10:]]
    assert talk(strict, *pieces, pause=0.1).startswith(b"HTTP/1.1 200")
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (body[:7], body[7:], b""))
    chunked = HEAD + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n" + chunks
    assert talk(strict, chunked).startswith(b"HTTP/1.1 200")


def test_too_many_connections_are_turned_away_and_the_others_answered(strict):
    until(lambda: metric(strict, "gpupipe_connections") < 3)
    with httpx.Client(base_url=strict.url) as first:
        assert first.get("/health/live").status_code == 200
        socks = [socket.create_connection(("127.0.0.1", strict.port)) for _ in range(60)]
        try:
            assert first.get("/health/live").status_code == 200
            late = socks[-1]
            late.settimeout(5)
            assert late.recv(1000).startswith(b"HTTP/1.1 503")
        finally:
            for sock in socks:
                sock.close()
    until(lambda: metric(strict, "gpupipe_connections") < 3)


def resident(pid: int) -> int:
    """Bytes of memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(next(x for x in status.splitlines() if x.startswith("VmRSS")).split()[1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_is_bounded_while_clients_misbehave(strict):
    bad = [b"POST /predict HTTP/1.1\r\nhost: t\r\ncontent-length: 60000\r\n\r\n" + b"[" * 50_000,
           b"POST /predict HTTP/1.1\r\nhost: t\r\ncontent-length: 50000\r\n\r\n" + b"[" * 50_000,
           HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"f000\r\n" + b"x" * 0xF000,
           b"GET / HTTP/1.1\r\nx: " + b"y" * 60_000]

    async def one(n: int) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", strict.port)
            writer.write(bad[n % len(bad)])
            await asyncio.wait_for(reader.read(1000), 3)
            writer.close()
        except (OSError, TimeoutError):
            pass

    async def round_() -> None:
        await asyncio.gather(*(one(n) for n in range(150)))

    asyncio.run(round_())
    before = resident(strict.process.pid)
    for _ in range(20 if SLOW else 2):
        asyncio.run(round_())
    assert resident(strict.process.pid) - before < 32 << 20
    assert strict.predict(RECORDS[0]).status_code == 200
    assert metric(strict, "gpupipe_buffered_bytes") == 0


def test_a_full_queue_is_a_503_that_says_when_to_come_back(bundles, client):
    asked = client(bundles["binary"], limits={"queue": 1})
    app = asked.app

    async def two() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as many:
            return await asyncio.gather(*(
                many.post("/predict", json={"records": [RECORDS[0]]}) for _ in range(5)))

    answers = asyncio.run(two())
    assert sorted(a.status_code for a in answers) == [200, 503, 503, 503, 503]
    refused = next(a for a in answers if a.status_code == 503)
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["code"] == "queue_full"


def test_requests_that_wait_are_scored_together(bundles, client):
    asked = client(bundles["binary"])

    async def many() -> list[httpx.Response]:
        transport = httpx.ASGITransport(asked.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            return await asyncio.gather(*(
                client.post("/predict", json={"records": [r]}) for r in RECORDS[:20]))

    answers = asyncio.run(many())
    alone = [asked.predict(r).json()["predictions"][0]["probability"] for r in RECORDS[:20]]
    assert [a.json()["predictions"][0]["probability"] for a in answers] == alone
    text = asked.get("/metrics").text
    batches = [f for f in text_string_to_metric_families(text) if f.name == "gpupipe_batch_rows"]
    counts = {s.labels.get("le"): s.value for s in batches[0].samples}
    assert counts["+Inf"] < 20 + 20  # fewer calls than requests



def test_a_client_that_does_not_read_its_answer_is_left(strict):
    rows = json.dumps({"records": [RECORDS[0]] * 400}).encode()
    request = HEAD + b"content-length: %d\r\n\r\n" % len(rows) + rows
    before = metric(strict, "gpupipe_rejections_total", reason="timeout")
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", strict.port))
        sock.settimeout(1)
        try:
            for _ in range(400):
                sock.sendall(request)
        except (TimeoutError, ConnectionError):
            pass
        until(lambda: metric(strict, "gpupipe_rejections_total", reason="timeout") > before)
    assert strict.predict(RECORDS[0]).status_code == 200
