"""The server's application: from a request to its answer.

`/predict` and the inference route of the Open Inference Protocol are answered here, straight
from ASGI's messages; whatever is asked less often goes on to FastAPI (`pages`).
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
import re
import secrets
import time
from collections.abc import Callable, MutableMapping
from typing import Any, TypeVar

import pyarrow as pa

from gpupipe.config.units import bytes_of
from gpupipe.errors import DataError
from gpupipe.serve import decode, encode
from gpupipe.serve.batching import Batcher, Predictions, Rows
from gpupipe.serve.exchange import (
    ARROW,
    CLOSE,
    JSON,
    WHOLE,
    Bodies,
    Gone,
    Headers,
    Receive,
    Scope,
    Send,
    accepts_arrow,
    is_arrow,
    read_on,
    respond,
)
from gpupipe.serve.faults import Refused, misfit
from gpupipe.serve.lines import Lines
from gpupipe.serve.metrics import Metrics
from gpupipe.serve.models import Deployment, Model
from gpupipe.serve.predictions import Answered, PredictionLog
from gpupipe.serve.rows import Seen
from gpupipe.serve.settings import ServeConfig, read_keys, seconds
from gpupipe.serve.units import LONGEST, unit_header, units_of

T = TypeVar("T")
Shadow = Callable[[bytes, str, str, str, str | None, float], None]

NOTHING: dict[str, Any] = {}
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
OPEN = ("/health", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready")
"""What is answered without a key."""
IN_THREAD = 256 << 10
"""Bodies of more bytes are parsed in a thread."""


class App:
    """An ASGI application.

    Attributes
    ----------
    deployment : the models that answer now; set anew by a reload.
    draining : set where the server is about to end: ready fails, connections are closed.
    """

    def __init__(
        self, settings: ServeConfig, deployment: Deployment, metrics: Metrics, lines: Lines,
        log: PredictionLog | None = None, shadow: Shadow | None = None,
        reload: Callable[[], None] | None = None, alone: Callable[[], bool] = lambda: False,
    ) -> None:
        from gpupipe.serve.pages import pages

        limits = settings.limits
        self.settings, self.metrics, self.lines = settings, metrics, lines
        self.deployment, self.draining = deployment, False
        self.log, self.shadow, self.reload = log, shadow, reload
        self.keys = read_keys(settings.api_keys) if settings.api_keys else ()
        self.batcher = Batcher(limits.queue, settings.batch_rows, metrics, alone)
        self.unit_header = unit_header(settings)
        self.bodies = Bodies(bytes_of(limits.body), bytes_of(limits.buffered),
                             seconds(limits.body_timeout))
        self.refused_versions: dict[str, str] = {}
        self.connections: Callable[[], int] = lambda: 0
        self._process, self._number = secrets.token_hex(8), itertools.count(1)
        self._pages = pages(self)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        began = time.perf_counter()
        headers = dict(scope["headers"])
        whole = scope.get("extensions", NOTHING).get(WHOLE)
        request_id = self._request_id(headers.get(b"x-request-id"))
        path, method = scope["path"], scope["method"]
        route, status = path, 0
        try:
            handler, route = self._handler(path)
            try:
                if self.keys and path not in OPEN:
                    self._check_key(headers)
                if handler is None:
                    status = await self._pages_answer(scope, receive, send, request_id)
                    route = getattr(scope.get("route"), "path", "other")
                    return
                if method != "POST":
                    raise Refused(405, "method_not_allowed", f"{method} is not answered here",
                                  headers=((b"allow", b"POST"),), close=True)
                sent = whole and whole.body()
                if sent is None or len(sent) > self.bodies.most:
                    sent = await self.bodies.read(headers, receive)
                with self.bodies.held_while(len(sent)):
                    kind, body, about = await handler(headers, sent, request_id, path)
                status = 200
                about = (kind, *about, (b"x-request-id", request_id.encode()), *self._closing())
                if whole is None or not whole.answer(200, about, body):
                    await respond(send, 200, about, body)
            except Refused as refused:
                status = refused.status
                self.metrics.add("gpupipe_rejections_total", reason=refused.code)
                await self._refuse(refused, receive, send, request_id)
        except Gone:
            status = 499
        except Exception as error:
            status = 500
            self.lines.tell("internal_error", request_id=request_id, path=path[:200],
                            error=_traceback(error))
            fault = Refused(500, "internal", "internal error; the server's log has the details")
            await self._refuse(fault, receive, send, request_id)
        finally:
            taken = time.perf_counter() - began
            self.metrics.answered(route, method, status, taken)
            if self.settings.access_log:
                self.lines.request(request_id, method, path, status, taken, scope.get("client"))

    def _handler(self, path: str) -> tuple[Any, str]:
        """What answers a path here, and the name of its route."""
        if path == "/predict":
            return self._predict, path
        if path.startswith("/v2/models/") and path.endswith("/infer"):
            return self._infer, "/v2/models/{name}/infer"
        return None, "other"

    def _closing(self) -> Headers:
        return (CLOSE,) if self.draining else ()

    def _request_id(self, given: bytes | None) -> str:
        """The client's own where it is sane, else a new one."""
        if given is not None and REQUEST_ID.fullmatch(given):
            return given.decode("ascii")
        return f"{self._process}-{next(self._number):x}"

    def _check_key(self, headers: dict[bytes, bytes]) -> None:
        given = headers.get(b"x-api-key")
        if given is None:
            scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
            given = token.strip() if scheme.lower() == b"bearer" else b""
        # Every key is compared, whichever fits: the time tells nothing of which, or how far.
        fits = [hmac.compare_digest(given, key) for key in self.keys]
        if not any(fits):
            raise Refused(401, "unauthorized", "a key is needed: Authorization: Bearer KEY, or "
                          "X-API-Key: KEY", headers=((b"www-authenticate", b"Bearer"),), close=True)

    async def _predict(
        self, headers: dict[bytes, bytes], body: bytes, request_id: str, path: str
    ) -> tuple[tuple[bytes, bytes], bytes, Headers]:
        wants_arrow = accepts_arrow(headers.get(b"accept", b""))
        arrow = is_arrow(headers)
        deployment = self.deployment  # one for the whole request, whatever is loaded meanwhile
        most = self.settings.limits.rows
        parse: Callable[..., Rows] = decode.table_of if arrow else decode.records_of
        rows = await _off_loop(len(body) > IN_THREAD, parse, body, most)
        model, predictions = await self._scored(deployment, rows, headers, request_id, body,
                                                "arrow" if arrow else "json")
        if wants_arrow:
            return ARROW, encode.arrow_body(predictions, model.bundle.classes), model.headers
        return JSON, encode.json_body(model.name, model.version, model.variant, request_id,
                                      predictions), model.headers

    async def _infer(
        self, headers: dict[bytes, bytes], body: bytes, request_id: str, path: str
    ) -> tuple[tuple[bytes, bytes], bytes, Headers]:
        deployment = self.deployment
        if path != f"/v2/models/{deployment.champion.name}/infer":
            raise Refused(404, "not_found", "there is no such model",
                          hint=f"the model is called {deployment.champion.name}")
        if accepts_arrow(headers.get(b"accept", b"")) or is_arrow(headers):
            raise Refused(415, "unsupported_media_type", "this route speaks JSON",
                          hint="/predict takes Arrow")
        rows, asked = await _off_loop(len(body) > IN_THREAD, decode.tensors_of, body,
                                      self.settings.limits.rows)
        model, predictions = await self._scored(deployment, rows, headers, request_id, body,
                                                "tensors")
        answer = encode.tensors_body(model.name, model.version, model.variant,
                                     asked["id"] or request_id, predictions,
                                     model.bundle.classes, asked["outputs"])
        return JSON, answer, model.headers

    async def _scored(
        self, deployment: Deployment, rows: Rows, headers: dict[bytes, bytes], request_id: str,
        body: bytes, kind: str,
    ) -> tuple[Model, Predictions]:
        """Choose the model, hold the rows to its types, score them, note what is to be noted."""
        units = self._units(rows, headers)
        model = self._chosen(deployment, units)
        seen = Seen({}, {})
        check = model.checks.table if isinstance(rows, pa.Table) else model.checks.records
        await _off_loop(len(rows) > self.settings.batch_rows, check, rows, seen)
        try:
            scored = await self.batcher.score(model, rows)
        except DataError as error:
            raise misfit("unscorable", error.message, hint=error.hint) from None
        number = next(self._number)
        name = f"{self._process}-{number:x}"
        predictions = [{"id": f"{name}-{i}", **p} for i, p in enumerate(scored)]
        self._count(model, seen, predictions)
        now = time.time()
        if self.log is not None:
            self.log.add(Answered(now, request_id, units, model, False, predictions, rows))
        if self.shadow is not None:
            unit = units if self.unit_header is not None and isinstance(units, str) else None
            self.shadow(body, kind, request_id, name, unit, now)
        return model, predictions

    def _units(self, rows: Rows, headers: dict[bytes, bytes]) -> list[str | None] | str | None:
        """The unit of the request (a text), those of its rows (a list), or None."""
        if self.unit_header is not None:
            given = headers.get(self.unit_header)
            return given.decode("latin-1")[:LONGEST] if given else None
        return None if self.settings.unit is None else units_of(self.settings, rows)

    def _chosen(self, deployment: Deployment, units: Any) -> Model:
        if deployment.split is None or units is None or isinstance(units, str):
            return deployment.chosen(units)
        model = deployment.chosen(units[0])
        for row, unit in enumerate(units):
            if deployment.chosen(unit) is not model:
                raise misfit("unit", f"rows 0 and {row} belong to different models, and one "
                             "answer comes from one of them", row, self.settings.unit,
                             "send the rows of a unit in a request of their own")
        return model

    def _count(self, model: Model, seen: Seen, predictions: Predictions) -> None:
        metrics = self.metrics
        metrics.add("gpupipe_rows_total", len(predictions), variant=model.variant)
        for column, n in seen.nulls.items():
            metrics.add("gpupipe_nulls_total", n, column=column)
        for column, n in seen.unseen.items():
            metrics.add("gpupipe_unseen_values_total", n, column=column)
        if seen.ignored:
            metrics.add("gpupipe_ignored_fields_total", seen.ignored)
        metrics.scores(model.variant, model.edges, predictions)

    async def _refuse(
        self, refused: Refused, receive: Receive, send: Send, request_id: str
    ) -> None:
        closing = (CLOSE,) if refused.close or self.draining else ()
        about = (JSON, *refused.headers, (b"x-request-id", request_id.encode()), *closing)
        await respond(send, refused.status, about, refused.body(request_id), more=refused.close)
        if not refused.close:
            return
        await read_on(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pages_answer(
        self, scope: Scope, receive: Receive, send: Send, request_id: str
    ) -> int:
        """Have FastAPI answer; the status."""
        status = 500

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"],
                                      (b"x-request-id", request_id.encode()), *self._closing()]
            await send(message)

        scope["gpupipe.request_id"] = request_id
        await self._pages(scope, receive, with_headers)
        return status

    def close(self) -> None:
        """End the threads; what is kept is written."""
        self.batcher.close()
        if self.log is not None:
            self.log.close()


async def _off_loop(large: bool, work: Callable[..., T], *arguments: Any) -> T:
    """Do what takes long in a thread, so that others are answered meanwhile; else at once."""
    if not large:
        return work(*arguments)
    return await asyncio.get_running_loop().run_in_executor(None, work, *arguments)


def _traceback(error: BaseException) -> list[str]:
    """Where an error came from, without the values that its message may have."""
    import traceback

    places = traceback.extract_tb(error.__traceback__)[-8:]
    return [type(error).__name__, *(f"{p.filename}:{p.lineno} {p.name}" for p in places)]
