"""Which sources are open, with which secrets, and what is left to their providers. Real HTTP, real broker."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from contracts.ssot import BadSsot, ProviderFile, Ssot
from providers.github import PROVIDER
from providers.port import Answer, Provider, Receipt, Refused, Request, Secret, Source, Stored
from providers.registry import sources
from runtime import settings
from services.ingest.app import endpoints_of
from services.ingest.receive import Endpoint
from tests.providers.driving import source_of
from tests.services.ingest.door import BODY, PATH, SECRET, head, logger, open_door, signed

if TYPE_CHECKING:
    from tests.conftest import Broker

pytestmark = pytest.mark.anyio


class Watched:
    """A verification that takes everything and shows what it was given so far."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.came = asyncio.Event()

    def update(self, chunk: bytes) -> None:
        self.chunks.append(chunk)
        self.came.set()

    def finish(self, body: bytes) -> Receipt:
        assert body == b"".join(self.chunks)
        return Receipt(identity="watched", kind="thing", verified_by=None)


def opened(provider: Provider, **file: Any) -> tuple[list[Endpoint], str]:
    """What ingest makes of one SSOT file, and what it logs."""
    log, written = logger()
    return endpoints_of([source_of(provider, **file)], log), written.getvalue()


def github(**changes: Any) -> list[Endpoint]:
    """GitHub's endpoint with another part of its provider."""
    return [Endpoint(source_of(replace(PROVIDER, **changes)), lambda: [SECRET])]


async def test_any_of_the_secrets_may_have_signed(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "secrets").write_bytes(b"old\nnew one \n")
    monkeypatch.setenv("GITHUB_WEBHOOK_SECRET", SECRET.value.decode())
    monkeypatch.setenv("GITHUB_WEBHOOK_SECRET_2_FILE", str(tmp_path / "secrets"))
    endpoints, said = opened(PROVIDER, secrets=["GITHUB_WEBHOOK_SECRET", "GITHUB_WEBHOOK_SECRET_2"])
    assert said == ""
    async with open_door(broker.url, broker.js, endpoints) as door:
        for n, value in enumerate((SECRET.value, b"old", b"new one ")):
            assert (await door.post(delivery=str(n), secret=Secret("", value))).status_code == 200
        assert (await door.post(secret=Secret("", b"new one"))).status_code == 401
        assert [delivery.verified_by for delivery in await door.stored()] == [
            "GITHUB_WEBHOOK_SECRET",
            "GITHUB_WEBHOOK_SECRET_2_FILE:1",
            "GITHUB_WEBHOOK_SECRET_2_FILE:2",
        ]


async def test_no_secret_no_endpoint(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_WEBHOOK_SECRET", "")
    endpoints, said = opened(PROVIDER, secrets=["GITHUB_WEBHOOK_SECRET"])
    assert [endpoint.closed is None for endpoint in endpoints] == [False]
    assert "source closed" in said
    async with open_door(broker.url, broker.js, endpoints) as door:
        sentence = await door.refused(404, "source_closed", await door.post(secret=Secret("", b"")))
        assert sentence == (
            "github is closed: it has no secret, set GITHUB_WEBHOOK_SECRET or GITHUB_WEBHOOK_SECRET_FILE"
        )
        other = await door.client.post("/webhooks/x")
        assert await door.refused(404, "unknown_source", other) == "no such source, known sources: none"


async def test_an_unsigned_source_is_open_and_says_so_loudly(broker: Broker) -> None:
    provider = replace(PROVIDER, verify=lambda request, source, secrets: Watched())
    endpoints, said = opened(provider, unsigned=True)
    assert '"this source is unsigned: anybody can write into its log"' in said
    assert '"level": "warning"' in said
    async with open_door(broker.url, broker.js, endpoints) as door:
        assert (await door.client.post(PATH, content=b"anything")).status_code == 200
        (delivery,) = await door.stored()
        assert (delivery.body, delivery.verified_by) == (b"anything", None)


def test_a_source_that_no_provider_knows_is_named() -> None:
    file = ProviderFile(name="gitlab", endpoint="/webhooks/gitlab")
    with pytest.raises(BadSsot, match=r"gitlab\.yaml: no provider is called gitlab; known: .*github"):
        sources(Ssot({"gitlab": file}))


async def test_the_body_is_verified_while_it_streams(broker: Broker) -> None:
    watched = Watched()
    endpoints = github(verify=lambda request, source, secrets: watched)
    async with open_door(broker.url, broker.js, endpoints) as door, door.line() as line:
        await line.send(head("POST", PATH, {"content-length": "6"}) + b"abc")
        async with asyncio.timeout(5):
            await watched.came.wait()
        assert watched.chunks == [b"abc"]
        assert door.receiver.memory.held == 3
        await line.send(b"def")
        assert (await line.reply()).status == 200


async def test_a_provider_may_shape_its_own_answers(broker: Broker) -> None:
    def shape(outcome: Stored | Refused, asked: Request) -> Answer:
        if asked.method == "OPTIONS":
            return Answer(
                status=200,
                body={},
                headers={"webhook-allowed-origin": asked.headers["webhook-request-origin"]},
            )
        if isinstance(outcome, Stored):
            return Answer(status=202, body={"text": outcome.delivery.name}, headers={"x-own": "1"})
        return Answer(status=200, body={"text": outcome.reason})

    endpoints = github(answer=shape)
    async with open_door(broker.url, broker.js, endpoints) as door:
        refused = await door.client.post(PATH, content=BODY)
        assert (refused.status_code, refused.json()) == (200, {"text": "missing_signature"})
        taken = await door.post()
        assert (taken.status_code, taken.json()) == (202, {"text": "github:d-1"})
        assert (taken.headers["x-own"], taken.headers["content-type"]) == ("1", "application/json")
        asked = await door.client.request("OPTIONS", PATH, headers={"WebHook-Request-Origin": "example.org"})
        assert (asked.status_code, asked.headers["webhook-allowed-origin"]) == (200, "example.org")


async def test_a_mistake_of_ours_is_answered_in_json_and_logged(broker: Broker) -> None:
    def broken(request: Request, source: Source, secrets: Sequence[Secret]) -> Watched:
        raise ZeroDivisionError

    endpoints = github(verify=broken)
    async with open_door(broker.url, broker.js, endpoints) as door:
        answer = await door.client.post(PATH, content=BODY, headers=signed())
        await door.refused(500, "internal_error", answer)
        await door.refused(
            500, "internal_error", await door.client.post(PATH, content=BODY, headers=signed())
        )
        (line,) = door.said("a request failed")  # who finds it does not fill the log
        assert "ZeroDivisionError" in line["exception"]


async def test_a_refused_request_leaves_nothing_in_memory(broker: Broker) -> None:
    seen: list[weakref.ref[Watched]] = []

    class Refusing(Watched):
        def finish(self, body: bytes) -> Receipt:
            raise Refused(401, "bad_signature", "no")

    def verify(request: Request, source: Source, secrets: Sequence[Secret]) -> Watched:
        made = Refusing()
        seen.append(weakref.ref(made))
        return made

    endpoints = github(verify=verify)
    async with open_door(broker.url, broker.js, endpoints) as door:
        gc.disable()
        try:
            await door.refused(401, "bad_signature", await door.post())
            assert [ref() for ref in seen] == [None]
        finally:
            gc.enable()


async def test_a_secret_file_is_read_again_when_it_changes(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(settings, "SECRETS_LOOK_S", 0.0)
    file = tmp_path / "secret"
    file.write_bytes(b"")
    monkeypatch.setenv("GITHUB_WEBHOOK_SECRET_FILE", str(file))
    endpoints, said = opened(PROVIDER, secrets=["GITHUB_WEBHOOK_SECRET"])
    assert "source closed" in said
    async with open_door(broker.url, broker.js, endpoints) as door:
        await door.refused(404, "source_closed", await door.post())
        file.write_bytes(SECRET.value)
        assert (await door.post(delivery="1")).status_code == 200
        file.write_bytes(b"another secret")
        assert (await door.post(delivery="2")).status_code == 401
        assert (await door.post(delivery="3", secret=Secret("", b"another secret"))).status_code == 200
        file.unlink()  # as while it is being replaced
        assert (await door.post(delivery="4", secret=Secret("", b"another secret"))).status_code == 200
        file.write_bytes(b"")
        assert (await door.post(delivery="5")).json()["reason"] == "source_closed"
