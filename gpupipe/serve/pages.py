"""What is asked less often than predictions, on FastAPI: health, metrics, what the model is."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from gpupipe.serve.encode import outputs_of
from gpupipe.serve.faults import CODES, Refused
from gpupipe.serve.models import Deployment, Model
from gpupipe.serve.openapi import document, tensor_type

if TYPE_CHECKING:
    from gpupipe.serve.app import App

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


def package_version() -> str:
    try:
        return version("gpupipe")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"


def answer(data: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(data), status, media_type="application/json")


def pages(app: App) -> FastAPI:
    """The application behind `App`; it answers everything but predictions."""
    api = FastAPI(title="gpupipe", redoc_url=None)
    api.openapi = lambda: document(app.deployment, app.settings, bool(app.keys))  # type: ignore[method-assign]
    _health(api, app)
    _model(api, app)

    @api.get("/metrics")
    async def metrics() -> Response:
        gauges(app)
        return Response(app.metrics.text(), media_type=PROMETHEUS)

    @api.post("/admin/reload")
    async def reload() -> Response:
        if not app.keys or app.reload is None:
            raise Refused(403, "forbidden", "a reload by request needs API keys",
                          hint="start the server with --api-keys, or send it SIGHUP")
        app.reload()
        return answer({"status": "reloading"}, 202)

    @api.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return Response(error.body(request.scope["gpupipe.request_id"]), error.status,
                        {k.decode(): v.decode() for k, v in error.headers},
                        media_type="application/json")

    @api.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        code = CODES.get(error.status_code, ("bad_request",))[0]
        message = {404: "there is nothing at this path", 405: f"{request.method} is not answered "
                   "here"}.get(error.status_code, str(error.detail))
        allowed = tuple((k.encode(), v.encode()) for k, v in (error.headers or {}).items())
        return await refused(request, Refused(
            error.status_code, code, message, headers=allowed,
            hint="/docs lists what there is" if error.status_code == 404 else None))

    return api


def _health(api: FastAPI, app: App) -> None:
    @api.get("/health/live")
    async def live() -> Response:
        return answer({"status": "live"})

    @api.get("/health/ready")
    async def ready() -> Response:
        if app.draining:
            raise Refused(503, "not_ready", "the server is about to end",
                          headers=((b"retry-after", b"1"),))
        return answer({"status": "ready"})

    @api.get("/health")
    async def health() -> Response:
        failing = app.log.failing if app.log is not None else None
        status = "draining" if app.draining else \
            "degraded" if failing or app.refused_versions else "ok"
        return answer({
            "status": status, "prediction_log": failing,
            "refused_versions": dict(app.refused_versions),
            "models": [_described(m) for m in app.deployment.models],
        })

    @api.get("/v2/health/live")
    async def v2_live() -> Response:
        return answer({"live": True})

    @api.get("/v2/health/ready")
    async def v2_ready() -> Response:
        return answer({"ready": not app.draining}, 503 if app.draining else 200)


def _described(model: Model) -> dict[str, Any]:
    return {"variant": model.variant, "name": model.name, "version": model.version,
            "reference": model.reference, "task": model.bundle.task}


def _model(api: FastAPI, app: App) -> None:
    def named(name: str) -> Deployment:
        if name != app.deployment.champion.name:
            raise Refused(404, "not_found", "there is no such model",
                          hint=f"the model is called {app.deployment.champion.name}")
        return app.deployment

    @api.get("/v2")
    async def server() -> Response:
        return answer({"name": "gpupipe", "version": package_version(), "extensions": []})

    @api.get("/v2/models/{name}")
    async def model(name: str) -> Response:
        champion = named(name).champion
        bundle = champion.bundle
        return answer({
            "name": champion.name, "versions": [champion.version], "platform": "gpupipe",
            "inputs": [{"name": f.name, "datatype": tensor_type(f.dtype), "shape": [-1]}
                       for f in bundle.schema],
            "outputs": [{"name": n, "datatype": t, "shape": [-1]} for n, t in outputs_of(bundle)],
        })

    @api.get("/v2/models/{name}/ready")
    async def model_ready(name: str) -> Response:
        named(name)
        return answer({"name": name, "ready": not app.draining},
                              503 if app.draining else 200)


def gauges(app: App) -> None:
    """Set the gauges to what is true now."""
    metrics = app.metrics
    for name in ("gpupipe_model_info", "gpupipe_model_loaded_timestamp_seconds"):
        metrics.forget(name)
    for m in app.deployment.models:
        metrics.gauge("gpupipe_model_info", 1, variant=m.variant, name=m.name, version=m.version)
        metrics.gauge("gpupipe_model_loaded_timestamp_seconds", m.loaded, variant=m.variant)
    metrics.gauge("gpupipe_worker_info", 1, pid=str(os.getpid()))
    metrics.gauge("gpupipe_queue_requests", app.batcher.depth)
    metrics.gauge("gpupipe_buffered_bytes", app.bodies.held)
    metrics.gauge("gpupipe_connections", app.connections())
