"""Wires the door: which sources are open, with which secrets, on which ports."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.js.errors import APIError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from contracts.ssot import ProviderFile
from providers.port import Provider, Secret
from providers.registry import PROVIDERS
from runtime import bus, process, settings, ssot, streams
from runtime.settings import BadSettings, Settings
from services.ingest.receive import Endpoint, Receiver


async def main(given: Settings, log: Any, stopping: asyncio.Event) -> None:
    """Run until `stopping`; requests in hand are finished."""
    endpoints, closed = open_endpoints(PROVIDERS, ssot.load_providers(given.odooops_ssot_dir), log)

    async def lost(reason: str) -> None:
        log.warning("broker lost", reason=reason)

    nc = await bus.connect(
        given.nats_for("ingest"),
        "ingest",
        on_lost=lost,
        on_closed=lambda: None if stopping.is_set() else process.lost("the broker's client has given up"),
    )

    async def problems() -> dict[str, str]:
        return await _problems(nc)

    app = make_app(Receiver(nc.jetstream(), endpoints, closed, log))
    try:
        async with (
            process.serve_ops(given, problems),
            process.serve_http(app, given.odooops_host, given.odooops_port),
        ):
            log.info("listening", host=given.odooops_host, port=given.odooops_port, sources=sorted(endpoints))
            await stopping.wait()
    finally:
        await nc.close()


def make_app(receiver: Receiver) -> Starlette:
    """The public application: the door, and /healthz."""

    async def healthz(request: Request) -> Response:
        return JSONResponse({"ok": True})

    app = Starlette(
        routes=[Route("/webhooks/{source}", receiver), Route("/healthz", healthz)],
        exception_handlers={HTTPException: _refuse},
    )
    app.router.redirect_slashes = False
    return app


def open_endpoints(
    providers: Mapping[str, Provider], files: Mapping[str, ProviderFile], log: Any
) -> tuple[dict[str, Endpoint], dict[str, str]]:
    """The sources that have a secret or say that they cannot sign; and the others, with what is missing."""
    endpoints: dict[str, Endpoint] = {}
    closed: dict[str, str] = {}
    for name, file in files.items():
        provider = providers.get(name)
        if provider is None:
            raise BadSettings(
                f"ssot/providers/{name}.yaml: no provider is called {name}; known: {', '.join(providers)}"
            )
        secrets = [Secret(secret, value) for secret, value in settings.secret_values(file.secrets)]
        if secrets or file.unsigned:
            endpoints[name] = Endpoint(provider, secrets)
            if file.unsigned:
                log.warning("this source is unsigned: anybody can write into its log", source=name)
        else:
            wanted = file.secrets[0] if file.secrets else "a secret"
            closed[name] = f"{name} is closed: it has no secret, set {wanted} or {wanted}_FILE"
            log.warning("source closed", source=name, reason=closed[name])
    return endpoints, closed


async def _problems(nc: Client) -> dict[str, str]:
    if not nc.is_connected:
        return {"broker": "not connected"}
    try:
        await nc.jetstream().stream_info(streams.DELIVERIES)
    except (nats.errors.Error, APIError, OSError) as error:
        return {"broker": f"{streams.DELIVERIES}: {type(error).__name__}"}
    return {}


async def _refuse(request: Request, error: Exception) -> Response:
    """The answer outside the door: the same JSON shape."""
    assert isinstance(error, HTTPException)
    slug, sentence = {
        404: ("not_found", "there is nothing here, webhooks go to POST /webhooks/{source}"),
        405: ("method_not_allowed", f"{request.method} is not taken here"),
    }.get(error.status_code, ("refused", error.detail))
    body = {"ok": False, "error": sentence, "code": error.status_code, "reason": slug}
    return JSONResponse(body, error.status_code, headers=error.headers)
