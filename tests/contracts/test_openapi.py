"""The OpenAPI document says what ingest answers: every refusal in the code stands in it, and real answers obey it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from jsonschema import Draft202012Validator

from cli import openapi
from cli.contracts import OPENAPI
from providers.port import answer
from providers.registry import sources
from runtime import ssot
from runtime.streams import BODY_BYTES_MAX
from services.ingest.receive import Endpoint, Receiver
from tests.contracts.examples import FOLDER
from tests.services.ingest.door import BODY, PATH, SECRET, signed

pytestmark = pytest.mark.anyio

ROOT = FOLDER.parent
SOURCES = sources(ssot.load(ROOT / "ssot"))
DOCUMENT: dict[str, Any] = json.loads((FOLDER / OPENAPI).read_bytes())
PATHS: dict[str, dict[str, Any]] = DOCUMENT["paths"]
FROM_POSTS = {400, 401, 404, 408, 413, 431, 500, 503}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in PATHS.items():
        for method, operation in item.items():
            if method != "servers":
                yield path, method, operation


def within(reference: str) -> Any:
    found: Any = DOCUMENT
    for key in reference.removeprefix("#/").split("/"):
        found = found[key]
    return found


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def test_each_endpoint_of_ssot_is_there_and_health_and_the_operations_port() -> None:
    taking = {file.endpoint for file in ssot.load_providers(ROOT / "ssot").values() if file.endpoint}
    assert {*taking, "/healthz", "/readyz", "/metrics"} == set(PATHS)


def test_the_document_is_well_formed() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    ids = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(ids)) == len(ids)
    for reference in references(DOCUMENT):
        assert within(reference)
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for _, _, operation in operations():
        assert all(response["description"] for response in operation["responses"].values())


def test_every_status_that_can_be_answered_to_a_post_is_there() -> None:
    of_its_own = {str(each.file.endpoint) for each in SOURCES.values() if each.provider.answer is not answer}
    for path, method, operation in operations():
        if method == "post" and path not in of_its_own:
            assert {"200", *map(str, FROM_POSTS)} <= set(operation["responses"]), path


def test_every_reason_in_the_code_stands_in_the_document() -> None:
    told = json.dumps(DOCUMENT)
    for folder in [ROOT / "services" / "ingest", *sorted((ROOT / "providers").iterdir())]:
        if folder.is_dir() and (folder.name == "ingest" or used(folder)):
            for refusal in openapi.refusals_in(folder):
                assert refusal.reason is None or f"`{refusal.reason}`" in told, refusal


def used(folder: Path) -> bool:
    """Whether a source that takes requests is understood by the code of this folder."""
    return any(each.file.endpoint and each.file.provider_name == folder.name for each in SOURCES.values())


def test_the_refusals_of_a_module_are_found(tmp_path: Path) -> None:
    (tmp_path / "verify.py").write_text(
        "def f(x):\n"
        "    raise Refused(401, 'bad', 'x')\n"
        "    return Refused(400 if x else 406, x.reason, 'x')\n"
        "    Refused(x.status, 'unknown status', 'x'); Refused(); other(500, 'no')\n"
    )
    assert (
        openapi.Refusal(400, None),
        openapi.Refusal(401, "bad"),
        openapi.Refusal(406, None),
    ) == openapi.refusals_in(tmp_path)


def test_the_headers_that_github_cannot_do_without_are_required() -> None:
    parameters = {each["name"]: each["required"] for each in PATHS[PATH]["post"]["parameters"]}
    assert parameters == {
        "x-github-event": True,
        "x-github-delivery": True,
        "x-hub-signature-256": True,
        "x-github-hook-id": False,
    }
    assert ["application/json"] == list(PATHS[PATH]["post"]["requestBody"]["content"])


async def answered(
    headers: dict[str, str], body: bytes = BODY, secrets: bool = True, path: str = PATH
) -> tuple[int, dict[str, str], Any]:
    """The answer of the door itself to one POST; it has no broker."""
    source = SOURCES["github"]
    receiver = Receiver([Endpoint(source, lambda: [SECRET] if secrets else [])], structlog.get_logger())
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await receiver(scope, receive, send)
    start, end = sent
    return start["status"], {k.decode(): v.decode() for k, v in start["headers"]}, json.loads(end["body"])


@pytest.mark.parametrize(
    ("headers", "secrets", "status"),
    [
        (signed(), True, 503),
        (signed(), False, 404),
        ({**signed(), "x-hub-signature-256": "sha256=" + "0" * 64}, True, 401),
        ({k: v for k, v in signed().items() if k != "x-github-delivery"}, True, 400),
        ({**signed(), "content-length": str(BODY_BYTES_MAX + 1)}, True, 413),
        ({**signed(), "x-github-hook-id": "9" * 5_000}, True, 400),
    ],
    ids=["no broker", "closed", "bad signature", "no id", "too large", "a long header"],
)
async def test_a_real_answer_obeys_the_document(headers: dict[str, str], secrets: bool, status: int) -> None:
    code, sent, body = await answered(headers, secrets=secrets)

    assert code == status
    response = PATHS[PATH]["post"]["responses"][str(code)]
    schema = response["content"][sent["content-type"]]["schema"]
    Draft202012Validator({**schema, "components": DOCUMENT["components"]}).validate(body)
    assert f"`{body['reason']}`" in response["description"]
    assert {name.lower() for name in response.get("headers", {})} <= set(sent)
