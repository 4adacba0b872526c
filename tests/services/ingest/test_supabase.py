"""Receipt ids over real HTTP with a real broker: what has no id and does not retry counts as often as it comes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from providers.port import Secret
from providers.supabase import PROVIDER
from services.ingest.receive import Endpoint
from tests.providers.driving import source_of
from tests.services.ingest.door import Door, open_door

if TYPE_CHECKING:
    from tests.conftest import Broker

pytestmark = pytest.mark.anyio

TOKEN = Secret("SUPABASE_WEBHOOK_TOKEN", b"a-bearer-that-must-not-be-seen")
PATH = "/webhooks/supabase"
BODY = b'{"type": "UPDATE", "table": "t", "schema": "s", "record": {"id": 1}, "old_record": {"id": 1}}'
HEADERS = {"authorization": f"Bearer {TOKEN.value.decode()}", "content-type": "application/json"}


@pytest.fixture
async def door(broker: Broker) -> AsyncIterator[Door]:
    endpoint = Endpoint(source_of(PROVIDER), lambda: [TOKEN])
    async with open_door(broker.url, broker.js, [endpoint]) as opened:
        yield opened
    assert TOKEN.value.decode() not in opened.written.getvalue()


async def test_equal_requests_are_deliveries_of_their_own(door: Door) -> None:
    answers = [await door.client.post(PATH, content=BODY, headers=HEADERS) for _ in range(3)]

    assert [(200, False)] * 3 == [(answer.status_code, answer.json()["duplicate"]) for answer in answers]
    stored = await door.stored()
    assert 3 == len({UUID(delivery.identity) for delivery in stored})
    assert {(BODY, "update", TOKEN.name)} == {(each.body, each.kind, each.verified_by) for each in stored}


async def test_the_token_is_not_stored(door: Door) -> None:
    await door.client.post(PATH, content=BODY, headers=HEADERS)

    (stored,) = await door.stored()
    assert {} == stored.headers


async def test_who_has_no_token_stores_nothing(door: Door) -> None:
    await door.refused(401, "missing_token", await door.client.post(PATH, content=BODY))
    wrong = await door.client.post(PATH, content=BODY, headers={"authorization": "Bearer x"})
    await door.refused(401, "bad_token", wrong)
