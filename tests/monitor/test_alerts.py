"""Alerts: what is news, and that every sink is told it once, whatever happens on the way."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from common.receiver import receiver
from common.watched import START, table

from gpupipe.cli.outcome import call
from gpupipe.config import load_config
from gpupipe.config.monitor import MonitorConfig
from gpupipe.config.sinks import SinkConfig, WebhookConfig
from gpupipe.errors import ConfigError
from gpupipe.monitor import monitor, sinks
from gpupipe.monitor.alerts import ALERTS, read_alerts

DAY = 86_400_000_000


def day(number: int, shift: float = 0.0, rows: int = 1440) -> pa.Table:
    """A day's rows, so many days after the first."""
    made = table(rows, number, shift)
    moved = pa.array(START + number * DAY + (made["t"].to_numpy().astype("int64") - START),
                     pa.timestamp("us"))
    return made.set_column(made.schema.get_field_index("t"), "t", moved)


def rules(*given: dict, **more) -> MonitorConfig:
    return MonitorConfig(window="1d", time="t", sinks=[SinkConfig.model_validate(s) for s in given],
                         **more)


@pytest.fixture
def quick(monkeypatch):
    """Pauses between tries take no time; they are kept."""
    pauses: list[float] = []
    monkeypatch.setattr(sinks.post, "__defaults__", (pauses.append,))
    monkeypatch.setattr(sinks.send, "__defaults__", (Path(), pauses.append))
    return pauses


def keys(message: dict, status: str) -> set[str]:
    return {a["labels"].get("column", a["labels"]["alertname"])
            for a in message["alerts"] if a["status"] == status}


def test_an_alert_is_told_once_until_it_is_over(bundle, tmp_path):
    with receiver() as hook:
        config = rules({"webhook": {"url": hook.url}},
                       {"file": {"path": str(tmp_path / "a.jsonl")}})

        def watched(data):
            return monitor(bundle, data, history=tmp_path / "h", rules=config)

        assert watched(day(0)).alerts["open"] == []
        assert hook.got == []
        first = watched(day(1, 0.5))
        assert first.code == 4 and first.alerts["sent"] == 2
        again = watched(day(2, 0.5))  # it goes on: no news
        assert again.code == 4 and again.alerts["news"] == []
        assert {a["key"] for a in again.alerts["open"]} == {"column/x", "prediction/(prediction)"}
        assert len(hook.got) == 1
        watched(day(3, 0.5, rows=50))  # too few rows to tell: it stays open
        assert len(hook.got) == 1
        over = watched(day(4))
        assert over.code == 0 and over.alerts["open"] == []
    fired, resolved = hook.bodies
    assert fired["status"] == "firing" and keys(fired, "firing") == {"x", "(prediction)"}
    assert resolved["status"] == "resolved" and keys(resolved, "resolved") == {"x", "(prediction)"}
    assert fired["alerts"][0]["fingerprint"] in {a["fingerprint"] for a in resolved["alerts"]}
    assert fired["version"] == "4" and "x: " in fired["text"]
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [e["change"] for e in lines] == ["fires"] * 2 + ["resolved"] * 2


def test_a_state_that_changes_is_told_and_no_data_is_an_alert_where_that_is_asked_for(
    bundle, tmp_path
):
    config = rules(alert_on=["warn", "alert", "insufficient"])

    def watched(data):
        return monitor(bundle, data, history=tmp_path / "h", rules=config).alerts

    changes = [{(e["key"], e["change"], e["state"]) for e in watched(d)["news"]} for d in (
        day(1, 0.15), day(2, 0.6), day(3, rows=50), day(4))]
    assert ("column/x", "fires", "warn") in changes[0]
    assert ("column/x", "changed", "alert") in changes[1]
    assert changes[2] == {("window", "fires", "insufficient")}
    assert ("window", "resolved", "insufficient") in changes[3]
    assert ("column/x", "resolved", "alert") in changes[3]


def test_a_webhook_that_is_down_is_a_warning_and_told_next_time(bundle, tmp_path, quick):
    with receiver() as hook:
        config = rules({"webhook": {"url": hook.url, "retries": 2}},
                       {"file": {"path": str(tmp_path / "a.jsonl")}})
        hook.answers = [503, 500, 502, 503, 503, 503]
        with pytest.warns(UserWarning, match="could not be delivered to webhook.*502") as told:
            found = monitor(bundle, day(1, 0.5), history=tmp_path / "h", rules=config)
        assert "hidden" not in str([w.message for w in told])
        assert found.code == 4 and found.alerts["sent"] == 1 and found.alerts["pending"] == 1
        assert [g["answer"] for g in hook.got] == [503, 500, 502]
        with pytest.warns(UserWarning, match="kept and sent next time"):
            monitor(bundle, day(2, 0.5), history=tmp_path / "h", rules=config)
        found = monitor(bundle, None, history=tmp_path / "h", rules=config)
        assert found.alerts["sent"] == 1 and found.alerts["pending"] == 0
        assert len({g["headers"]["Idempotency-Key"] for g in hook.got}) == 1
        assert len({g["body"] for g in hook.got}) == 1
        assert len(hook.bodies) == 1
    assert len(quick) == 4 and all(0 <= q <= 2 for q in quick)


def test_what_nobody_can_mend_by_waiting_is_tried_once_and_a_redirect_is_not_followed(
    bundle, tmp_path, quick
):
    with receiver() as hook:
        message = sinks.message_of({"name": "m"}, [])
        for answer, tries in ((401, 1), (404, 1), (302, 1), (429, 3)):
            hook.got.clear()
            hook.answers, hook.headers = [answer] * 5, {"Location": hook.url, "Retry-After": "7"}
            quick.clear()
            with pytest.raises(sinks.Undelivered, match=str(answer)):
                sinks.post(WebhookConfig(url=hook.url, retries=2), message)
            assert len(hook.got) == tries
            assert quick == [7.0] * (tries - 1)


def test_a_server_that_hangs_or_is_not_there_is_given_up(quick):
    message = sinks.message_of({"name": "m"}, [])
    with receiver() as hook:
        hook.answers = [0.5]
        with pytest.raises(sinks.Undelivered, match="timed out"):
            sinks.post(WebhookConfig(url=hook.url, timeout="100ms", retries=0), message)
        hook.answers = [0.0]  # it closes the connection without an answer
        with pytest.raises(sinks.Undelivered):
            sinks.post(WebhookConfig(url=hook.url, retries=0), message)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(sinks.Undelivered, match="refused"):
        sinks.post(WebhookConfig(url=f"http://127.0.0.1:{port}/", retries=1), message)
    assert len(quick) == 1


def test_messages_are_signed_as_standard_webhooks_are(monkeypatch):
    monkeypatch.setenv("HOOK_SECRET", "a secret")
    monkeypatch.setenv("HOOK_TOKEN", "token")
    message = sinks.message_of({"name": "m"}, [])
    with receiver() as hook:
        monkeypatch.setenv("HOOK_URL", hook.url)
        sinks.post(WebhookConfig(url_env="HOOK_URL", secret_env="HOOK_SECRET",
                                 token_env="HOOK_TOKEN"), message)
        got = {k.lower(): v for k, v in hook.got[0]["headers"].items()}
        signed = f"{got['webhook-id']}.{got['webhook-timestamp']}.{hook.got[0]['body']}"
        mine = hmac.new(b"a secret", signed.encode(), hashlib.sha256).digest()
        assert got["webhook-signature"] == "v1," + base64.b64encode(mine).decode()
        assert got["authorization"] == "Bearer token"
    # The example of the specification's own libraries.
    assert sinks.signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330",
        '{"test": 2432232314}') == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_secrets_come_from_the_environment_and_are_looked_for_first(bundle, tmp_path, monkeypatch):
    monkeypatch.delenv("NOT_SET", raising=False)
    config = rules({"webhook": {"url": "https://localhost/x", "secret_env": "NOT_SET"}})
    with pytest.raises(ConfigError, match="NOT_SET is not set"):
        monitor(bundle, day(1), history=tmp_path / "h", rules=config)
    assert not (tmp_path / "h").exists()
    with pytest.raises(ConfigError, match="sinks need a history"):
        monitor(bundle, day(1), rules=rules({"file": "a.jsonl"}))


@pytest.mark.parametrize(("sink", "says"), [
    ("{webhook: {url: ftp://x}}", "no address of a webhook"),
    ("{webhook: {timeout: 3s}}", "either `url` or `url_env`"),
    ("{webhook: {url: 'https://x', url_env: X}}", "either `url` or `url_env`"),
    ("{webhook: {url: 'https://x', timeout: soon}}", "not a duration"),
    ("{webhook: {url: 'https://x', secret_env: 'a b'}}", "secret_env"),
    ("{}", "a webhook or a file"), ("{mail: me}", "mail"),
])
def test_a_mistake_in_the_file_is_told_with_its_line(sink, says, tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(f"data: {{source: x.csv, target: y}}\nmonitor:\n  sinks: [{sink}]\n")
    with pytest.raises(ConfigError, match=says) as error:
        load_config(path)
    assert ":3:" in (error.value.where or "")


def test_lines_of_several_writers_never_mix_and_a_line_cut_short_stays_alone(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"cut": ')
    line = json.dumps({"text": "x" * 5000}) + "\n"
    threads = [threading.Thread(target=lambda: [sinks.append(path, line) for _ in range(20)])
               for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    first, *rest = path.read_text().splitlines()
    assert first == '{"cut": ' and len(rest) == 80
    assert {len(json.loads(r)["text"]) for r in rest} == {5000}
    with pytest.raises(sinks.Undelivered, match="No such file"):
        sinks.append(tmp_path / "none" / "a.jsonl", line)


def test_the_command_warns_on_stderr_and_goes_on(bundle, tmp_path, capfd):
    pq.write_table(day(1, 0.5), tmp_path / "day.parquet")
    (tmp_path / "p.yaml").write_text(
        "data: {source: day.parquet, target: y}\n"
        "monitor: {window: 1d, time: t, sinks: [{file: none/a.jsonl}, {file: b.jsonl}]}\n")
    code = call(["monitor", str(bundle), str(tmp_path / "day.parquet"), "--history",
                 str(tmp_path / "h"), "--rules", str(tmp_path / "p.yaml"), "--json"])
    out, err = capfd.readouterr()
    assert code == 4
    assert "could not be delivered to file none/a.jsonl" in err
    alerts = json.loads(out)["alerts"]
    assert (alerts["sent"], alerts["pending"]) == (1, 1)
    assert len((tmp_path / "b.jsonl").read_text().splitlines()) == len(alerts["open"])
    assert read_alerts(tmp_path / "h")["pending"]["file none/a.jsonl"]
    assert (tmp_path / "h" / ALERTS).exists()
