"""How patient outgoing HTTP is, against a real server: attempts are counted there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from time import monotonic

import pytest
from tenacity import wait_fixed, wait_none

from runtime import http as outgoing
from runtime.http import ATTEMPTS_MAX, Answer, HttpClient, NoAnswer, Patience
from tests import api as apis
from tests.api import Api, Reply, too_many

pytestmark = pytest.mark.anyio

FINE = Reply("fine")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setattr(outgoing, "_backoff_s", wait_none())
    with Api() as running:
        running.routes["/"] = FINE
        yield running


@pytest.fixture
async def http(anyio_backend: object) -> AsyncIterator[HttpClient]:
    async with HttpClient() as client:
        yield client


def patience(within_s: float = 60.0, sat_out_s_max: float = 60.0) -> Patience:
    return Patience(
        within_s=within_s, sat_out_s_max=sat_out_s_max, pause_s=lambda answer: answer.stated_retry_after_s
    )


async def send(http: HttpClient, api: Api, patient: Patience | None = None) -> Answer:
    return await http.send("GET", f"{api.address}/", repeatable=True, patience=patient)


async def test_a_pause_is_sat_out_for_as_long_as_the_caller_says(api: Api, http: HttpClient) -> None:
    api.next("/", too_many(1), FINE)
    begun = monotonic()
    assert (await send(http, api, patience())).status == 200
    assert 1 <= monotonic() - begun
    api.next("/", too_many(2))
    assert (await send(http, api, patience(sat_out_s_max=1.0))).status == 429
    assert api.count() == 3


async def test_no_pause_is_begun_that_ends_after_the_callers_time(api: Api, http: HttpClient) -> None:
    api.next("/", too_many(5))
    begun = monotonic()
    assert (await send(http, api, patience(within_s=2.0))).status == 429
    assert (api.count(), monotonic() - begun < 2) == (1, True)


async def test_no_attempt_begins_after_the_callers_time(
    api: Api, http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "_backoff_s", wait_fixed(0.1))
    api.routes["/"] = apis.BAD_GATEWAY
    await send(http, api, patience(within_s=0.25))
    assert api.count() <= 3


@pytest.mark.parametrize("patient", [None, patience()])
async def test_attempts_are_as_many_for_the_patient(
    api: Api, http: HttpClient, patient: Patience | None
) -> None:
    api.next("/", apis.DROPS, too_many(0), apis.BAD_GATEWAY, apis.DROPS, too_many(0), FINE)
    assert (await send(http, api, patient)).status == 429
    assert api.count() == ATTEMPTS_MAX


async def test_a_forbidding_that_names_a_pause_is_repeated_for_the_patient_alone(
    api: Api, http: HttpClient
) -> None:
    forbidding = apis.forbidden(retry_after=0)
    api.next("/", forbidding, forbidding)
    assert (await send(http, api)).status == 403
    assert (await send(http, api, patience())).status == 200
    api.next("/", Reply({}, 403))
    assert (await send(http, api, patience())).status == 403
    assert api.count() == 4


async def test_an_answer_that_is_too_large_is_none(
    api: Api, http: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "ANSWER_BYTES_MAX", 1_000)
    api.routes["/"] = Reply(b"x" * 1_001)
    with pytest.raises(NoAnswer, match="answer_too_large"):
        await send(http, api, patience())
    assert 1 == api.count()


@pytest.mark.parametrize(
    "stated, seconds",
    [
        ("12", 12),
        ("7200", 7200),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0),
        ("soon", None),
        ("Fri, 31 Dec 1999 23:59:59 +99999999999999", None),
        ("-1", None),
        ("1" * 5_000, 1_111_111_111),
    ],
)
def test_a_stated_pause_is_read_in_seconds_or_as_a_date(stated: str, seconds: float | None) -> None:
    answer = Answer(429, {"retry-after": stated}, b"")
    assert answer.stated_retry_after_s == seconds
    assert answer.retry_after_s == (None if seconds is None else min(seconds, outgoing.RETRY_AFTER_S_MAX))
