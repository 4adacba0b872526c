"""What Mailgun is answered, over real HTTP: 200, 406 for what must not come again, 503 where nothing is stored."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from providers.mailgun import PROVIDER
from providers.mailgun.verify import BODY_BYTES_MAX, sign
from providers.port import Secret
from services.ingest.receive import Endpoint
from tests.providers.driving import source_of
from tests.services.ingest.door import Door, open_door

if TYPE_CHECKING:
    from tests.conftest import Broker

pytestmark = pytest.mark.anyio

KEY = Secret("MAILGUN_SIGNING_KEY", b"a signing key")
OTHER = Secret("MAILGUN_SIGNING_KEY_2", b"another signing key")
PATH = "/webhooks/mailgun"
JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}
NINE_HOURS_S = 9 * 3600


def pair(age_s: int = 0, token: str = "t-1", key: Secret = KEY) -> dict[str, str]:
    """A signed pair, some seconds old."""
    at = str(int(time.time()) - age_s)
    return {"timestamp": at, "token": token, "signature": sign(at, token, key)}


def body(signed: dict[str, str], **event: Any) -> bytes:
    return json.dumps({"signature": signed, "event-data": {"event": "opened", **event}}).encode()


@pytest.fixture
async def door(broker: Broker) -> AsyncIterator[Door]:
    endpoint = Endpoint(source_of(PROVIDER), lambda: [KEY])
    async with open_door(broker.url, broker.js, [endpoint]) as opened:
        yield opened
    written = opened.written.getvalue()
    assert KEY.value.decode() not in written and "t-1" not in written


async def test_a_genuine_request_is_stored_under_its_token(door: Door) -> None:
    raw = body(pair(age_s=NINE_HOURS_S - 60))
    answer = await door.client.post(PATH, content=raw, headers=JSON)

    assert (200, {"ok": True, "delivery": "mailgun:t-1", "seq": 1, "duplicate": False}) == (
        answer.status_code,
        answer.json(),
    )
    (stored,) = await door.stored()
    assert (raw, "opened", KEY.name, JSON) == (stored.body, stored.kind, stored.verified_by, stored.headers)


async def test_a_token_that_comes_again_with_the_same_body_is_a_duplicate(door: Door) -> None:
    raw = body(pair())
    answers = [await door.client.post(PATH, content=raw, headers=JSON) for _ in range(3)]

    assert [False, True, True] == [answer.json()["duplicate"] for answer in answers]
    assert 1 == await door.count()


async def test_a_token_that_comes_again_with_another_body_is_stored_for_the_ledger_to_judge(
    door: Door,
) -> None:
    signed = pair()
    answers = [
        await door.client.post(PATH, content=body(signed, recipient=name), headers=JSON) for name in "ab"
    ]

    assert [(200, False), (200, False)] == [(each.status_code, each.json()["duplicate"]) for each in answers]
    assert ["t-1", "t-1"] == [stored.identity for stored in await door.stored()]


async def test_a_form_is_stored_as_it_came(door: Door) -> None:
    raw = urlencode({"event": "opened", **pair()}).encode()
    answer = await door.client.post(PATH, content=raw, headers=FORM)

    assert 200 == answer.status_code
    (stored,) = await door.stored()
    assert (raw, FORM) == (stored.body, stored.headers)


@pytest.mark.parametrize(
    ("status", "reason", "raw", "headers"),
    [
        (406, "stale_signature", body(pair(age_s=NINE_HOURS_S + 60)), JSON),
        (406, "malformed_json", b"{", JSON),
        (406, "missing_signature", b"{}", JSON),
        (406, "unsupported_content_type", body(pair()), {"content-type": "text/plain"}),
        (406, "missing_event", urlencode({"body-plain": "Dear", **pair()}).encode(), FORM),
        (406, "body_too_large", b" " * BODY_BYTES_MAX + body(pair()), JSON),
        (406, "header_too_long", body(pair()), {"content-type": "application/json;" + "x" * 2_000}),
        (401, "bad_signature", body(pair(key=OTHER)), JSON),
        (401, "signature_too_new", body(pair(age_s=-7_200)), JSON),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_is_refused_is_answered_in_json(
    door: Door, status: int, reason: str, raw: bytes, headers: dict[str, str]
) -> None:
    await door.refused(status, reason, await door.client.post(PATH, content=raw, headers=headers))


async def test_without_a_broker_mailgun_is_told_to_come_again(door: Door) -> None:
    door.receiver.store = None
    answer = await door.client.post(PATH, content=body(pair()), headers=JSON)

    await door.refused(503, "broker_away", answer)


async def test_of_many_copies_at_once_one_is_stored(door: Door) -> None:
    raw = body(pair())
    answers = await asyncio.gather(*(door.client.post(PATH, content=raw, headers=JSON) for _ in range(20)))

    assert sorted(answer.json()["duplicate"] for answer in answers) == [False] + 19 * [True]
    assert 1 == await door.count()
