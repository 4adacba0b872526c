"""The OpenAPI document: what is asked and answered over HTTP, for people and tools that do not read Python.

Made of SSOT (which endpoints there are), of each provider (its genuine request, and how it shapes answers) and of the
refusals that stand in the code; nothing of it is written a second time.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from starlette.routing import Route

from contracts.delivery import Delivery, body_sha256
from providers import port
from providers.port import Answer, Composed, Parcel, Refused, Request, Secret, Source, Stored
from runtime.process import ops_app
from runtime.streams import ACCEPT_S_MAX, BODY_BYTES_MAX
from services.ingest import receive

VERSION = "1.0.0"
SAID_AT = datetime(2026, 1, 1, tzinfo=UTC)
SAMPLE_BODY = b"{}"
SAMPLE_SECRET_BYTES = b"\x01" * 32
ORIGIN = "webhook-request-origin"
CONTENT_TYPE = "content-type"
PUBLIC, OPS = "ingest", "ops"

Json = dict[str, Any]

_SERVERS: Mapping[str, Json] = {
    PUBLIC: {
        "url": "http://{host}:{port}",
        "description": "Ingest. From elsewhere it is reached through a proxy that speaks TLS.",
        "variables": {"host": {"default": "127.0.0.1"}, "port": {"default": "8420"}},
    },
    OPS: {
        "url": "http://{host}:{port}",
        "description": "The operations port of a service, not for the public.",
        "variables": {"host": {"default": "127.0.0.1"}, "port": {"default": "9100"}},
    },
}
_MEANINGS: Mapping[int, str] = {
    200: "Stored, and fsynced, or known already: `duplicate` says which. With `spooled`, fsynced on a local disk, "
    "to be stored when the broker is back.",
    400: "The request is not one that can be stored; the same bytes will not be taken later.",
    401: "It does not prove who sent it.",
    403: "Its sender may not deliver.",
    404: "No source takes requests here: there is none, or it has no secret.",
    405: "Use POST.",
    406: "It will never be taken: do not send it again.",
    408: "The body did not arrive in time.",
    413: f"The body is larger than {BODY_BYTES_MAX} bytes.",
    429: "More than `ssot` lets this source, or this address, ask; send it again after `Retry-After` seconds.",
    431: "The headers to keep are too long.",
    500: "A mistake of ours; send it again later.",
    503: "Not stored; send it again.",
}
"""What each status means, whoever says it."""
_ABOUT = f"""\
Senders post to the endpoints that SSOT declares. A 200 means that the bytes are stored; without an answer in \
{ACCEPT_S_MAX:g} s they were not. Every answer is JSON, but to what is no HTTP: an empty 400, 414 or 431."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal that stands in the code; `reason` is None where it is decided when it happens."""

    status: int
    reason: str | None


def document(sources: Mapping[str, Source]) -> Json:
    """The whole OpenAPI document for these sources."""
    taking = sorted(
        (each for each in sources.values() if each.file.endpoint is not None), key=lambda s: s.name
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": "OdooOps", "version": VERSION, "description": _ABOUT},
        "servers": [_SERVERS[PUBLIC]],
        "paths": {
            **{str(source.file.endpoint): _endpoint(source) for source in taking},
            receive.HEALTH: {
                "get": _get("health", "Whether the process lives.", {"200": _lives()}),
            },
            **_ops_paths(),
        },
        "components": {
            "schemas": {
                "Stored": _schema(port.answer(_stored("example"), _request("POST")).body),
                "Spooled": _schema(port.answer(_spooled("example"), _request("POST")).body),
                "Refused": _schema(
                    port.answer(Refused(400, "a_slug", "One sentence."), _request("POST")).body
                ),
                "Readiness": {
                    "type": "object",
                    "required": ["ok", "problems"],
                    "properties": {
                        "ok": {"type": "boolean"},
                        "problems": {
                            "type": "object",
                            "description": "What is wrong, by part.",
                            "additionalProperties": {"type": "string"},
                        },
                    },
                },
            }
        },
    }


@cache
def refusals_in(folder: Path) -> tuple[Refusal, ...]:
    """Every refusal that the modules of a folder can raise."""
    found = {
        refusal
        for path in sorted(folder.glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == Refused.__name__
        for refusal in _refusals(node)
    }
    return tuple(sorted(found, key=lambda each: (each.status, each.reason or "")))


def _refusals(call: ast.Call) -> Iterator[Refusal]:
    if len(call.args) < 2:
        return
    status, reason = call.args[:2]
    said = reason.value if isinstance(reason, ast.Constant) and isinstance(reason.value, str) else None
    for each in (status.body, status.orelse) if isinstance(status, ast.IfExp) else (status,):
        if isinstance(each, ast.Constant) and isinstance(each.value, int):
            yield Refusal(each.value, said)


def _endpoint(source: Source) -> Json:
    made = _genuine(source)
    operations: Json = {
        "post": {
            "operationId": f"post_{source.name}",
            "summary": f"What {source.name} sends.",
            "tags": [source.name],
            "parameters": _parameters(source, made),
            "requestBody": {
                "required": True,
                "description": f"As its sender makes it, at most {BODY_BYTES_MAX} bytes; stored byte for byte.",
                "content": {_media_type(made): {}},
            },
            "responses": _responses(source),
        }
    }
    if (asked := _handshake(source)) is not None:
        operations["options"] = {
            "operationId": f"options_{source.name}",
            "summary": f"Whether {source.name} may deliver.",
            "tags": [source.name],
            "parameters": [
                {
                    "name": "WebHook-Request-Origin",
                    "in": "header",
                    "description": "Without it the request is no question, and answered with 405.",
                    "required": True,
                    "schema": {"type": "string"},
                }
            ],
            "responses": asked,
        }
    return operations


def _genuine(source: Source) -> Composed | None:
    """A request as its sender would make it; None where its provider makes none of a body that says nothing."""
    provider = source.provider
    if provider.compose is None:
        return None
    parcel = Parcel(body=SAMPLE_BODY, event="example", delivery="example-1", at=SAID_AT)
    try:
        return provider.compose(parcel, source, _secret(source))
    except (ValueError, Refused):
        return None


def _parameters(source: Source, made: Composed | None) -> list[Json]:
    """Headers and query parameters of a genuine request, and the other headers that are kept with the body."""
    sent = {} if made is None else {name.lower(): name for name in made.headers}
    sent.pop(CONTENT_TYPE, None)
    kept = [name for name in source.provider.headers if name not in sent and name != CONTENT_TYPE]
    found = [
        _parameter("header", name, required=made is not None and _needs(source, made, lower))
        for lower, name in sent.items()
    ]
    found += [_parameter("header", name, required=False) for name in kept if not name.endswith("*")]
    if made is not None:
        found += [_parameter("query", name, required=True) for name, _ in parse_qsl(made.query)]
    return found


def _parameter(place: str, name: str, *, required: bool) -> Json:
    return {"name": name, "in": place, "required": required, "schema": {"type": "string"}}


def _needs(source: Source, made: Composed, name: str) -> bool:
    """Whether a genuine request meets another end without a header."""
    headers = {each.lower(): value for each, value in made.headers.items()}
    without = {each: value for each, value in headers.items() if each != name}
    return _judged(source, made, headers) != _judged(source, made, without)


def _judged(source: Source, made: Composed, headers: Mapping[str, str]) -> tuple[int, str] | None:
    """How a request is refused; None where it is taken."""
    verify: port.Verify = source.provider.verify  # type: ignore[assignment]  # it has an endpoint
    try:
        verification = verify(_request("POST", headers, made.query), source, [_secret(source)])
        verification.update(made.body)
        verification.finish(made.body)
    except Refused as refused:
        return refused.status, refused.reason
    return None


def _responses(source: Source) -> Json:
    """Every answer to a POST, as its provider shapes it."""
    found: dict[int, list[Answer]] = {}
    reasons: dict[int, set[str]] = {}
    asked = _request("POST")
    for refusal in _possible(source):
        refused = Refused(refusal.status, refusal.reason or "a_slug", "One sentence.")
        shaped = source.provider.answer(refused, asked)
        found.setdefault(shaped.status, []).append(shaped)
        reasons.setdefault(shaped.status, set()).update({refusal.reason} if refusal.reason else ())
    for n, outcome in enumerate((_stored(source.name), _spooled(source.name))):
        taken = source.provider.answer(outcome, asked)
        found.setdefault(taken.status, []).insert(n, taken)
    return {
        str(status): _response(status, answers, sorted(reasons.get(status, ())))
        for status, answers in sorted(found.items())
    }


def _possible(source: Source) -> Iterable[Refusal]:
    verify = source.provider.verify
    assert verify is not None
    here = refusals_in(Path(inspect.getfile(receive)).parent)
    return [*here, *refusals_in(Path(inspect.getfile(verify)).parent)]


def _response(status: int, answers: list[Answer], reasons: list[str]) -> Json:
    described = _MEANINGS.get(status) or f"{HTTPStatus(status).phrase}."
    if reasons:
        described += f" `reason` is one of {', '.join(f'`{reason}`' for reason in reasons)}."
    schemas: list[Json] = []
    for each in answers:
        schema = _named(each)
        if schema not in schemas:
            schemas.append(schema)
    body = schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
    headers = sorted({name for each in answers for name in each.headers} | _added(status))
    return {
        "description": described,
        **({"headers": {name: {"schema": {"type": "string"}} for name in headers}} if headers else {}),
        "content": {"application/json": {"schema": body}},
    }


def _added(status: int) -> set[str]:
    """The headers that ingest adds to an answer."""
    return {429: {"Retry-After"}, 503: {"Retry-After"}, 405: {"Allow"}}.get(status, set())


def _named(answer: Answer) -> Json:
    """The schema of an answer's body, by its name where it is one of the usual three."""
    usual: Mapping[str, Stored | Refused] = {
        "Stored": _stored("example"),
        "Spooled": _spooled("example"),
        "Refused": Refused(400, "a_slug", "One sentence."),
    }
    schema = _schema(answer.body)
    for name, outcome in usual.items():
        if schema == _schema(port.answer(outcome, _request("POST")).body):
            return {"$ref": f"#/components/schemas/{name}"}
    return schema


def _schema(value: object) -> Json:
    """The schema of values like this one."""
    if isinstance(value, Mapping):
        return {
            "type": "object",
            "required": list(value),
            "properties": {name: _schema(each) for name, each in value.items()},
        }
    kinds: tuple[tuple[type, str], ...] = (
        (bool, "boolean"),
        (int, "integer"),
        (str, "string"),
        (list, "array"),
    )
    return {"type": next((word for kind, word in kinds if isinstance(value, kind)), "null")}


def _handshake(source: Source) -> Json | None:
    """The answers to a sender that asks by OPTIONS before it posts; None where none does."""
    ask = source.provider.handshake
    if ask is None:
        return None
    options = source.options.model_dump()
    origins = options.get("allowed_origins") or ("sender.example",)
    found: dict[int, list[Answer]] = {}
    for origin in (origins[0], "nobody.invalid"):
        shaped = ask(_request("OPTIONS", {ORIGIN: origin}), source)
        if shaped is not None:
            found.setdefault(shaped.status, []).append(shaped)
    unasked = source.provider.answer(Refused(405, "method_not_allowed", "One sentence."), _request("OPTIONS"))
    found.setdefault(unasked.status, []).append(unasked)
    return {str(status): _response(status, answers, []) for status, answers in sorted(found.items())}


def _ops_paths() -> Json:
    """The paths of the operations port that the public one does not have."""

    async def well() -> dict[str, str]:
        return {}

    answers: Mapping[str, Json] = {
        "/readyz": {
            status: {
                "description": said,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Readiness"}}},
            }
            for status, said in (("200", "The work can be done."), ("503", "It cannot: `problems` says why."))
        },
        "/metrics": {
            "200": {
                "description": "In the text format of Prometheus.",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            }
        },
    }
    paths = [route.path for route in ops_app(well).routes if isinstance(route, Route)]
    return {
        path: {"servers": [_SERVERS[OPS]], "get": _get(path.strip("/"), _OPS_SUMMARIES[path], answers[path])}
        for path in paths
        if path != receive.HEALTH
    }


_OPS_SUMMARIES: Mapping[str, str] = {
    "/readyz": "Whether the service can do its work.",
    "/metrics": "Its figures.",
}


def _get(name: str, summary: str, responses: Json) -> Json:
    return {"operationId": f"get_{name}", "summary": summary, "responses": responses}


def _lives() -> Json:
    schema = _schema({"ok": True})
    return {"description": "It does.", "content": {"application/json": {"schema": schema}}}


def _media_type(made: Composed | None) -> str:
    headers = {} if made is None else {name.lower(): value for name, value in made.headers.items()}
    return headers.get(CONTENT_TYPE, "*/*").partition(";")[0]


def _secret(source: Source) -> Secret:
    return Secret("EXAMPLE", source.provider.new_secret(SAMPLE_SECRET_BYTES).encode())


def _request(method: str, headers: Mapping[str, str] | None = None, query: str = "") -> Request:
    return Request(
        method=method, headers=headers or {}, query=query, received_at=SAID_AT, receipt_id="example"
    )


def _stored(source: str) -> Stored:
    delivery = Delivery(
        source=source,
        identity="example-1",
        kind="example",
        via="webhook",
        received_at=SAID_AT,
        body=SAMPLE_BODY,
        body_sha256=body_sha256(SAMPLE_BODY),
    )
    return Stored(delivery=delivery, seq=1, duplicate=False)


def _spooled(source: str) -> Stored:
    return replace(_stored(source), seq=None)
