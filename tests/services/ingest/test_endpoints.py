"""Which sources are open, with which secrets, and what is left to their providers. Real HTTP, real broker."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from contracts.ssot import ProviderFile
from providers.github import PROVIDER
from providers.port import Answer, Asked, Receipt, Refused, Secret, Stored
from runtime.settings import BadSettings
from services.ingest.app import open_endpoints
from services.ingest.receive import Endpoint
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


def opened(given: Any, **file: Any) -> tuple[dict[str, Endpoint], dict[str, str], str]:
    """What `open_endpoints` makes of one SSOT file, and what it logs."""
    log, written = logger()
    endpoints, closed = open_endpoints({"github": given}, {"github": _file(**file)}, log)
    return endpoints, closed, written.getvalue()


def _file(name: str = "github", **file: Any) -> ProviderFile:
    return ProviderFile(name=name, endpoint=PATH, **file)


async def test_any_of_the_secrets_may_have_signed(
    broker: Broker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "secrets").write_bytes(b"old\nnew one \n")
    monkeypatch.setenv("GITHUB_WEBHOOK_SECRET", SECRET.value.decode())
    monkeypatch.setenv("GITHUB_WEBHOOK_SECRET_2_FILE", str(tmp_path / "secrets"))
    endpoints, closed, said = opened(PROVIDER, secrets=["GITHUB_WEBHOOK_SECRET", "GITHUB_WEBHOOK_SECRET_2"])
    assert (closed, said) == ({}, "")
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
    endpoints, closed, said = opened(PROVIDER, secrets=["GITHUB_WEBHOOK_SECRET"])
    assert endpoints == {}
    assert "source closed" in said
    async with open_door(broker.url, broker.js, endpoints, closed) as door:
        sentence = await door.refused(404, "source_closed", await door.post(secret=Secret("", b"")))
        assert sentence == (
            "github is closed: it has no secret, set GITHUB_WEBHOOK_SECRET or GITHUB_WEBHOOK_SECRET_FILE"
        )
        other = await door.client.post("/webhooks/x")
        assert await door.refused(404, "unknown_source", other) == "no such source, known sources: none"


async def test_an_unsigned_source_is_open_and_says_so_loudly(broker: Broker) -> None:
    provider = replace(PROVIDER, verify=lambda headers, secrets: Watched())
    endpoints, closed, said = opened(provider, unsigned=True)
    assert closed == {}
    assert '"this source is unsigned: anybody can write into its log"' in said
    assert '"level": "warning"' in said
    async with open_door(broker.url, broker.js, endpoints) as door:
        assert (await door.client.post(PATH, content=b"anything")).status_code == 200
        (delivery,) = await door.stored()
        assert (delivery.body, delivery.verified_by) == (b"anything", None)


def test_a_source_that_no_provider_knows_is_named() -> None:
    with pytest.raises(BadSettings, match=r"gitlab\.yaml: no provider is called gitlab; known: github"):
        open_endpoints({"github": PROVIDER}, {"gitlab": _file("gitlab")}, logger()[0])


async def test_the_body_is_verified_while_it_streams(broker: Broker) -> None:
    watched = Watched()
    endpoint = Endpoint(replace(PROVIDER, verify=lambda headers, secrets: watched), [SECRET])
    async with open_door(broker.url, broker.js, {"github": endpoint}) as door, door.line() as line:
        await line.send(head("POST", PATH, {"content-length": "6"}) + b"abc")
        async with asyncio.timeout(5):
            await watched.came.wait()
        assert watched.chunks == [b"abc"]
        assert door.receiver.memory.held == 3
        await line.send(b"def")
        assert (await line.reply()).status == 200


async def test_a_provider_may_shape_its_own_answers(broker: Broker) -> None:
    def shape(outcome: Stored | Refused, asked: Asked) -> Answer:
        if asked.method == "OPTIONS":
            return Answer(
                status=200,
                body={},
                headers={"webhook-allowed-origin": asked.headers["webhook-request-origin"]},
            )
        if isinstance(outcome, Stored):
            return Answer(status=202, body={"text": outcome.delivery.name}, headers={"x-own": "1"})
        return Answer(status=200, body={"text": outcome.reason})

    endpoint = Endpoint(replace(PROVIDER, answer=shape), [SECRET])
    async with open_door(broker.url, broker.js, {"github": endpoint}) as door:
        refused = await door.client.post(PATH, content=BODY)
        assert (refused.status_code, refused.json()) == (200, {"text": "missing_signature"})
        taken = await door.post()
        assert (taken.status_code, taken.json()) == (202, {"text": "github:d-1"})
        assert (taken.headers["x-own"], taken.headers["content-type"]) == ("1", "application/json")
        asked = await door.client.request("OPTIONS", PATH, headers={"WebHook-Request-Origin": "example.org"})
        assert (asked.status_code, asked.headers["webhook-allowed-origin"]) == (200, "example.org")


async def test_a_mistake_of_ours_is_answered_in_json_and_logged(broker: Broker) -> None:
    def broken(headers: Mapping[str, str], secrets: Sequence[Secret]) -> Watched:
        raise ZeroDivisionError

    endpoint = Endpoint(replace(PROVIDER, verify=broken), [SECRET])
    async with open_door(broker.url, broker.js, {"github": endpoint}) as door:
        answer = await door.client.post(PATH, content=BODY, headers=signed())
        await door.refused(500, "internal_error", answer)
        (line,) = door.said("a request failed")
        assert "ZeroDivisionError" in line["exception"]


async def test_a_refused_request_leaves_nothing_in_memory(broker: Broker) -> None:
    seen: list[weakref.ref[Watched]] = []

    class Refusing(Watched):
        def finish(self, body: bytes) -> Receipt:
            raise Refused(401, "bad_signature", "no")

    def verify(headers: Mapping[str, str], secrets: Sequence[Secret]) -> Watched:
        made = Refusing()
        seen.append(weakref.ref(made))
        return made

    endpoint = Endpoint(replace(PROVIDER, verify=verify), [SECRET])
    async with open_door(broker.url, broker.js, {"github": endpoint}) as door:
        gc.disable()
        try:
            await door.refused(401, "bad_signature", await door.post())
            assert [ref() for ref in seen] == [None]
        finally:
            gc.enable()
