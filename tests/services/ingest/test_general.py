"""The three receivers for any sender, at the real door: real HTTP, real broker."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from contracts.standard_webhooks import sign
from providers import cloudevents, generic, standard
from providers.port import Provider, Secret
from services.ingest.receive import Endpoint
from services.projector.understand import understand
from tests.providers.cloudevents.deliveries import BINARY_BODY, BINARY_HEADERS, batch, body, event, fixture
from tests.providers.driving import source_of
from tests.providers.generic.styles import mac
from tests.providers.standard.deliveries import FULL
from tests.services.ingest.door import Door, open_door

if TYPE_CHECKING:
    from tests.conftest import Broker

pytestmark = pytest.mark.anyio

SHARED = b"whsec_" + b64encode(b"a key that must not be seen")
HANDSHAKE: dict[str, Any] = fixture("abuse-protection.http")
BEARER = {"authorization": f"Bearer {SHARED.decode()}"}


def endpoint(provider: Provider, path: str, secret: bytes = SHARED, **file: Any) -> Endpoint:
    """A source of `provider` at `path`, with one secret."""
    source = source_of(provider, endpoint=f"/webhooks/{path}", **file)
    return Endpoint(source, lambda: [Secret("A_SECRET", secret)])


STANDARD = endpoint(standard.PROVIDER, "standard/shop")
CLOUDEVENTS = endpoint(
    cloudevents.PROVIDER,
    "cloudevents",
    options={"allowed_origins": ["eventemitter.example.com"], "allowed_rate_per_min": 100},
)
GENERIC = endpoint(
    generic.PROVIDER,
    "generic/acme",
    options={
        "verify": {"hmac": {"header": "X-Sig", "prefix": "sha256="}},
        "kind": {"pointer": "/kind"},
        "ref": "/thing",
    },
)
ALL = [STANDARD, CLOUDEVENTS, GENERIC]


async def means(door: Door, seq: int) -> list[tuple[str, str]]:
    """Type and ref of what the stored delivery means: nothing that it needs was lost on the way."""
    delivery = (await door.stored())[seq - 1]
    sources = {each.source.name: each.source for each in ALL}
    understood = understand(sources, delivery)
    assert understood.status == "projected", understood.error
    return [(each.event.type, each.event.ref) for each in understood.statements]


def name_of(answer: httpx.Response) -> tuple[str, bool]:
    """What a taken delivery is called, and whether it was there already."""
    assert answer.status_code == 200, answer.text
    said = answer.json()
    return said["delivery"], said["duplicate"]


async def test_standard_webhooks_are_taken_once_however_often_they_are_sent(broker: Broker) -> None:
    async with open_door(broker.url, broker.js, ALL) as door:
        for prefix, duplicate in (("webhook", False), ("svix", True)):
            headers = sign("msg_1", datetime.now(UTC), FULL, SHARED)
            spelt = {name.replace("webhook", prefix): value for name, value in headers.items()}
            answer = await door.client.post("/webhooks/standard/shop", content=FULL, headers=spelt)
            assert name_of(answer) == ("standard:msg_1", duplicate)
        (delivery,) = await door.stored()
        assert (delivery.body, delivery.kind) == (FULL, "contact.created")
        assert (delivery.verified_by, delivery.headers) == ("A_SECRET", {})
        assert await means(door, 1) == [("external.received", "standard:contact.created/msg_1")]
        assert SHARED.decode() not in door.written.getvalue()


async def test_what_is_not_by_the_standard_is_refused(broker: Broker) -> None:
    async with open_door(broker.url, broker.js, ALL) as door:
        headers = sign("msg_1", datetime.now(UTC), FULL, SHARED)
        answer = await door.client.post("/webhooks/standard/shop", content=FULL + b" ", headers=headers)
        await door.refused(401, "bad_signature", answer)
        await door.refused(401, "missing_signature", await door.client.post("/webhooks/standard/shop"))


async def test_an_event_is_taken_in_each_mode_and_keeps_its_attributes(broker: Broker) -> None:
    structured = {"content-type": "application/cloudevents+json; charset=utf-8"}
    xml = body("structured.xml-string")
    async with open_door(broker.url, broker.js, ALL) as door:
        binary = await door.client.post(
            "/webhooks/cloudevents", content=BINARY_BODY, headers={**BINARY_HEADERS, **BEARER}
        )
        assert name_of(binary) == ("cloudevents:/mycontext#C234-1234-1234", False)
        signed = sign("m-1", datetime.now(UTC), xml, SHARED)
        answer = await door.client.post(
            "/webhooks/cloudevents", content=xml, headers={**structured, **signed}
        )
        assert name_of(answer) == ("cloudevents:/mycontext#B234-1234-1234", False)
        first, second = await door.stored()
        assert first.headers == BINARY_HEADERS
        assert second.headers == structured
        assert {first.kind, second.kind} == {"com.example.someevent"}
        assert await means(door, 1) == [("external.received", "cloudevents:/mycontext#C234-1234-1234")]
        assert await means(door, 2) == [("external.received", "cloudevents:/mycontext#B234-1234-1234")]


async def test_a_batch_is_one_delivery_of_many_events(broker: Broker) -> None:
    raw = batch(event(), event(id="2"))
    headers = {"content-type": "application/cloudevents-batch+json", **BEARER}
    async with open_door(broker.url, broker.js, ALL) as door:
        first, again = [
            name_of(await door.client.post("/webhooks/cloudevents", content=raw, headers=headers))
            for _ in range(2)
        ]
        assert (first[0], False, True) == (again[0], first[1], again[1])
        assert ["cloudevents:/s#1", "cloudevents:/s#2"] == [ref for _, ref in await means(door, 1)]


async def test_a_token_in_the_address_opens_and_is_never_logged(broker: Broker) -> None:
    raw = json.dumps(event()).encode()
    headers = {"content-type": "application/cloudevents+json"}
    async with open_door(broker.url, broker.js, ALL) as door:
        taken = await door.client.post(
            "/webhooks/cloudevents", params={"access_token": SHARED.decode()}, content=raw, headers=headers
        )
        assert name_of(taken) == ("cloudevents:/s#1", False)
        assert "private, no-store" == taken.headers["cache-control"]
        wrong = await door.client.post(
            "/webhooks/cloudevents", params={"access_token": "a-wrong-one"}, content=raw, headers=headers
        )
        assert (401, "bad_token") == (wrong.status_code, wrong.json()["reason"])
        (delivery,) = await door.stored()
        everything = f"{delivery!r} {delivery.headers} {door.written.getvalue()} {wrong.text}"
        assert SHARED.decode() not in everything and "a-wrong-one" not in everything


async def test_a_missing_attribute_is_named_to_the_sender(broker: Broker) -> None:
    async with open_door(broker.url, broker.js, ALL) as door:
        answer = await door.client.post(
            "/webhooks/cloudevents", content=b"x", headers={**BEARER, "ce-specversion": "1.0", "ce-id": "1"}
        )
        sentence = await door.refused(400, "missing_attribute", answer)
        assert sentence == "The attribute source is missing."


async def test_who_asks_by_options_is_answered_as_the_web_hook_document_shows(broker: Broker) -> None:
    async with open_door(broker.url, broker.js, ALL) as door:
        asked = HANDSHAKE["request"]
        granted = await door.client.request(
            asked["method"], "/webhooks/cloudevents", headers=asked["headers"]
        )
        assert granted.status_code == 200
        wanted = HANDSHAKE["response"]["headers"]
        assert wanted == {name: granted.headers[name] for name in wanted}
        stranger = {"WebHook-Request-Origin": "elsewhere.example"}
        refused = await door.client.options("/webhooks/cloudevents", headers=stranger)
        assert (403, "origin_not_allowed") == (refused.status_code, refused.json()["reason"])
        assert "webhook-allowed-origin" not in refused.headers
        plain = await door.client.options("/webhooks/cloudevents")
        assert (405, "POST") == (plain.status_code, plain.headers["allow"])
        elsewhere = await door.client.request("OPTIONS", "/webhooks/generic/acme", headers=asked["headers"])
        assert (405, False) == (elsewhere.status_code, "webhook-allowed-origin" in elsewhere.headers)
        assert await door.count() == 0


async def test_nobody_is_told_to_post_to_a_closed_source(broker: Broker) -> None:
    closed = Endpoint(CLOUDEVENTS.source, list)
    async with open_door(broker.url, broker.js, [closed]) as door:
        asked = HANDSHAKE["request"]
        answer = await door.client.request(asked["method"], "/webhooks/cloudevents", headers=asked["headers"])
        assert (404, "source_closed") == (answer.status_code, answer.json()["reason"])


async def test_a_sender_without_code_and_id_may_say_the_same_twice(broker: Broker) -> None:
    raw = b'{"kind": "switch.on", "thing": "lamp 7"}'
    headers = {"x-sig": f"sha256={mac(raw, key=SHARED)}", "content-type": "application/json"}
    async with open_door(broker.url, broker.js, ALL) as door:
        first, second = [
            name_of(await door.client.post("/webhooks/generic/acme", content=raw, headers=headers))
            for _ in range(2)
        ]
        assert first[0] != second[0]
        assert (False, False) == (first[1], second[1])
        assert ["switch.on"] * 2 == [delivery.kind for delivery in await door.stored()]
        assert await means(door, 1) == await means(door, 2) == [("external.received", "generic:lamp%207")]


async def test_a_tampered_or_unreadable_word_of_a_sender_without_code_is_refused(broker: Broker) -> None:
    async with open_door(broker.url, broker.js, ALL) as door:
        headers = {"x-sig": f"sha256={mac(b'<x/>', key=SHARED)}"}
        tampered = await door.client.post("/webhooks/generic/acme", content=b"<y/>", headers=headers)
        await door.refused(401, "bad_signature", tampered)
        answer = await door.client.post("/webhooks/generic/acme", content=b"<x/>", headers=headers)
        sentence = await door.refused(400, "malformed_json", answer)
        assert sentence == "The body is not JSON, which options.kind.pointer needs."
