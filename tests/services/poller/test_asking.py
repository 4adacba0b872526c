"""What an API is asked with, how often, and what its answers are taken for. The API is a real server."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

import pytest
from tenacity import wait_none

from contracts.ssot import Api as DeclaredApi
from providers.polling import Allowance, Ask, Failed, Polling, no_allowance
from runtime import http as outgoing
from runtime.embedded import free_port
from runtime.http import ATTEMPTS_MAX, HttpClient
from runtime.settings import BadSettings
from services.poller.asking import Asker, credentials
from services.poller.pace import Limits
from tests import api as apis
from tests.api import Api, Reply, forbidden, limited, too_many
from tests.services.poller.shop import SECRET, TOKEN

pytestmark = pytest.mark.anyio

FINE = Reply({"fine": True})


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "_backoff_s", wait_none())


@pytest.fixture
def api() -> Iterator[Api]:
    with Api() as running:
        running.routes["/things"] = FINE
        yield running


@pytest.fixture
async def http(anyio_backend: object) -> AsyncIterator[HttpClient]:
    async with HttpClient() as client:
        yield client


def github_like(headers: Mapping[str, str], fetched_at: datetime) -> Allowance | None:
    if "x-ratelimit-remaining" not in headers:
        return None
    reset = datetime.fromtimestamp(int(headers["x-ratelimit-reset"]), UTC)
    return Allowance(
        left=int(headers["x-ratelimit-remaining"]),
        of=int(headers["x-ratelimit-limit"]),
        renewed_in_s=(reset - fetched_at).total_seconds(),
    )


def asker(
    http: HttpClient, address: str, *, secret: str = TOKEN, limits: Any = None, **declared: Any
) -> Asker:
    polling = Polling(
        scopes=lambda source: [],
        allowance=declared.pop("allowance", no_allowance),
        headers={"X-Version": "3"},
    )
    shown = {"base_url": address, "auth": "bearer", "secret": SECRET, **declared}
    return Asker(
        http, "shop", DeclaredApi.model_validate(shown), polling, secret.encode(), Limits(**(limits or {}))
    )


async def failure(asking: Asker, request: Ask) -> Failed:
    with pytest.raises(Failed) as failed:
        await asking.ask(request)
    assert TOKEN not in str(failed.value)
    return failed.value


@pytest.mark.parametrize(
    "declared, header, value",
    [
        ({"auth": "bearer"}, "authorization", f"Bearer {TOKEN}"),
        (
            {"auth": "basic", "user": "api"},
            "authorization",
            "Basic " + base64.b64encode(f"api:{TOKEN}".encode()).decode(),
        ),
        ({"auth": "header", "header": "X-API-Key"}, "x-api-key", TOKEN),
    ],
)
async def test_the_secret_is_shown_as_the_file_says(api, http, declared, header, value):
    asking = asker(http, f"{api.address}/v2/", **declared)
    api.routes["/v2/things"] = FINE
    reply = await asking.ask(Ask(path="/things", params={"a": "1 2"}, etag='"e"'))
    (call,) = api.calls
    assert (call.path, call.query, call.headers[header]) == ("/v2/things", {"a": "1 2"}, value)
    assert (call.headers["x-version"], call.headers["if-none-match"]) == ("3", '"e"')
    assert reply.json() == {"fine": True}
    assert reply.asked_at <= reply.fetched_at


@pytest.mark.parametrize("secret", [b"two words", b"line\nline", "umlaut-ä".encode(), b" "])
def test_a_secret_that_no_header_holds_is_refused_by_name(secret):
    declared = DeclaredApi(base_url="https://x.example", auth="bearer", secret=SECRET)
    with pytest.raises(BadSettings, match=SECRET):
        credentials(declared, secret)


async def test_a_line_end_behind_a_secret_is_none_of_it(api, http):
    await asker(http, api.address, secret=f"{TOKEN}\n").ask(Ask(path="/things"))
    assert api.calls[0].headers["authorization"] == f"Bearer {TOKEN}"


async def test_a_whole_address_of_the_same_origin_is_asked_as_it_is(api, http):
    await asker(http, api.address).ask(Ask(path=f"{api.address}/things?page=2&x=a%2Cb"))
    assert dict(api.calls[0].query) == {"page": "2", "x": "a,b"}


@pytest.mark.parametrize(
    "path, reason",
    [
        ("{other}/things", "other_origin"),
        ("https://127.0.0.1:{port}/things", "other_origin"),
        ("http://localhost:{port}/things", "other_origin"),
        ("http://127.0.0.1:{port}@evil.example/", "bad_address"),
        ("http://user:pw@127.0.0.1:{port}/", "bad_address"),
        ("http://127.0.0.1:{port}\\@evil.example/", "bad_address"),
        ("http://[::1/", "bad_address"),
        ("http://127.0.0.1:99999/", "bad_address"),
        ("things", "bad_address"),
        ("/a\nb", "bad_address"),
        ("/" + "a" * 9_000, "bad_address"),
    ],
)
async def test_nothing_is_sent_anywhere_but_to_the_api(api, http, path, reason):
    with Api() as other:
        port = api.address.rpartition(":")[2]
        request = Ask(path=path.format(other=other.address, port=port))
        assert (await failure(asker(http, api.address), request)).reason == reason
        assert (api.count(), other.count()) == (0, 0)


@pytest.mark.parametrize("status", [301, 302, 307])
async def test_a_redirect_is_not_followed(api, http, status):
    with Api() as other:
        api.routes["/things"] = Reply(status=status).and_headers(location=f"{other.address}/things")
        assert (await failure(asker(http, api.address), Ask(path="/things"))).reason == f"http_{status}"
        assert (api.count(), other.count()) == (1, 0)


@pytest.mark.parametrize(
    "reply, reason, attempts",
    [
        (apis.NOT_FOUND, "http_404", 1),
        (Reply({"message": "Bad credentials"}, 401), "unauthorized", 1),
        (Reply({"message": "Resource not accessible"}, 403), "forbidden", 1),
        (apis.BAD_GATEWAY, "http_502", ATTEMPTS_MAX),
        (apis.BAD_GATEWAY.and_headers(retry_after=0), "http_502", ATTEMPTS_MAX),
        (apis.BAD_GATEWAY.and_headers(retry_after=900), "http_502", 1),
        (too_many(0), "rate_limited", ATTEMPTS_MAX),
        (too_many(None), "rate_limited", ATTEMPTS_MAX),
        (too_many(900), "rate_limited", 1),
        (forbidden(remaining=0, reset_in_s=0), "rate_limited", ATTEMPTS_MAX),
        (forbidden(remaining=0, reset_in_s=900), "rate_limited", 1),
        (forbidden(remaining=4000, retry_after=0), "rate_limited", ATTEMPTS_MAX),
        (forbidden(remaining=4000), "forbidden", 1),
        (apis.DROPS, "no_answer", ATTEMPTS_MAX),
        (Reply(b"x" * 3_000), "no_answer", 1),
    ],
)
async def test_every_failure_is_bounded_and_named(api, http, monkeypatch, reply, reason, attempts):
    monkeypatch.setattr(outgoing, "ANSWER_BYTES_MAX", 2_000)
    api.routes["/things"] = reply
    asking = asker(http, api.address, allowance=github_like)
    assert (await failure(asking, Ask(path="/things"))).reason == reason
    assert (api.count(), asking.calls) == (attempts, 1)


async def test_an_api_that_never_answers_is_given_up_after_as_many_attempts(api, monkeypatch):
    monkeypatch.setattr(outgoing, "READ_S_MAX", 0.05)
    api.routes["/things"] = apis.HANGS
    async with HttpClient() as http:
        assert (await failure(asker(http, api.address), Ask(path="/things"))).reason == "no_answer"
    assert api.count() == ATTEMPTS_MAX


async def test_an_api_that_is_not_there_is_named(http):
    port = free_port()
    asking = asker(http, f"http://127.0.0.1:{port}")
    failed = await failure(asking, Ask(path="/things"))
    assert failed.reason == "not_sent"
    assert str(failed).startswith(f"GET /things at 127.0.0.1:{port}: ")


async def test_the_attempts_at_a_request_are_counted_whatever_goes_wrong_with_each(api, http):
    api.next("/things", apis.BAD_GATEWAY, too_many(0), apis.DROPS, forbidden(0), apis.BAD_GATEWAY)
    asking = asker(http, api.address, allowance=github_like)
    assert (await failure(asking, Ask(path="/things"))).reason == "http_502"
    assert api.count() == ATTEMPTS_MAX


async def test_a_trouble_that_passes_is_none(api, http):
    api.next("/things", apis.BAD_GATEWAY, too_many(0), apis.DROPS)
    assert (await asker(http, api.address).ask(Ask(path="/things"))).json() == {"fine": True}
    assert api.count() == 4


async def test_broken_json_is_not_asked_for_again(api, http):
    api.routes["/things"] = apis.BROKEN
    reply = await asker(http, api.address).ask(Ask(path="/things"))
    with pytest.raises(Failed) as failed:
        reply.json()
    assert (failed.value.reason, api.count()) == ("not_json", 1)


async def test_a_status_that_is_an_answer_is_no_failure(api, http):
    api.routes["/things"] = Reply(status=304)
    assert (await asker(http, api.address).ask(Ask(path="/things", also=frozenset({304})))).status == 304


async def test_an_error_says_what_the_api_says_and_neither_query_nor_secret(api, http):
    said = f"bad\x1b[31m token {TOKEN}\nin " + "x" * 500
    api.routes["/things"] = Reply({"error": {"message": said}}, 422)
    failed = await failure(asker(http, api.address), Ask(path="/things?key=hidden", params={"key": "hidden"}))
    assert str(failed).startswith("GET /things answered 422: bad [31m token (secret) in xxx")
    assert "hidden" not in str(failed)
    assert len(str(failed)) < 250


@pytest.mark.parametrize(
    "status, hint",
    [
        (401, f"is {SECRET} still valid?"),
        (403, f"does {SECRET} have the right to it?"),
        (404, f"is it there, and may {SECRET} see it?"),
    ],
)
async def test_a_refusal_names_the_secret_and_what_to_look_at(api, http, status: int, hint: str):
    api.routes["/things"] = Reply({}, status)
    failed = await failure(asker(http, api.address), Ask(path="/things"))
    assert str(failed) == f"GET /things answered {status}; {hint}"


async def test_a_post_is_sent_once_and_the_next_one_waits(api, http):
    asking = asker(http, api.address, limits={"post_pause_s": 0.15})
    begun = monotonic()
    for _ in range(2):
        await asking.ask(Ask(path="/things", method="POST"))
    assert 0.15 <= monotonic() - begun
    api.routes["/things"] = apis.BAD_GATEWAY
    assert (await failure(asking, Ask(path="/things", method="POST"))).reason == "http_502"
    assert [call.method for call in api.calls] == ["POST"] * 3


async def test_requests_slow_down_before_the_limit(api, http):
    api.routes["/things"] = lambda call: limited(FINE, remaining=10, limit=5000, reset_in_s=3)
    asking = asker(http, api.address, allowance=github_like)
    await asking.ask(Ask(path="/things"))
    begun = monotonic()
    await asking.ask(Ask(path="/things"))
    assert 0.15 <= monotonic() - begun  # 2 to 3 s for 10 requests


async def test_an_api_whose_limit_a_run_cannot_wait_for_is_asked_nothing_more(api, http):
    api.routes["/things"] = lambda call: limited(FINE, remaining=3, limit=5000, reset_in_s=3000)
    asking = asker(http, api.address, allowance=github_like)
    assert (await asking.ask(Ask(path="/things"))).status == 200
    assert (await failure(asking, Ask(path="/things"))).reason == "rate_limited"
    assert api.count() == 1
    assert asking.not_before is not None
    assert timedelta(seconds=2900) < asking.not_before - datetime.now(UTC) < timedelta(seconds=3001)


@pytest.mark.parametrize("reply, later_s", [(too_many(500), 500), (too_many(None), 60)])
async def test_a_refusal_for_asking_too_often_ends_the_asking(api, http, reply, later_s):
    api.routes["/things"] = reply
    asking = asker(http, api.address)
    await failure(asking, Ask(path="/things"))
    asked = api.count()
    assert (await failure(asking, Ask(path="/other"))).reason == "rate_limited"
    assert api.count() == asked
    assert asking.not_before is not None
    assert abs((asking.not_before - datetime.now(UTC)).total_seconds() - later_s) < 5


async def test_headers_that_hold_no_numbers_state_nothing(api, http):
    api.routes["/things"] = FINE.and_headers(x_ratelimit_remaining="many", x_ratelimit_reset="soon")
    await asker(http, api.address, allowance=github_like).ask(Ask(path="/things"))


async def test_a_run_has_a_budget_of_requests(api, http):
    asking = asker(http, api.address, limits={"calls_max": 2})
    for _ in range(2):
        await asking.ask(Ask(path="/things"))
    assert (await failure(asking, Ask(path="/things"))).reason == "budget"
    assert api.count() == 2


async def test_a_run_has_a_budget_of_time(api, http):
    asking = asker(http, api.address, limits={"run_s_max": 0.0})
    assert (await failure(asking, Ask(path="/things"))).reason == "budget"
    assert api.count() == 0


async def test_no_pause_is_sat_out_that_outlasts_the_run(api, http):
    api.routes["/things"] = too_many(30)
    begun = monotonic()
    asking = asker(http, api.address, limits={"run_s_max": 5.0})
    assert (await failure(asking, Ask(path="/things"))).reason == "rate_limited"
    assert (api.count(), monotonic() - begun < 4) == (1, True)


def test_replies_show_neither_headers_nor_bodies():
    shown = repr(outgoing.Answer(200, {"set-cookie": TOKEN}, json.dumps(TOKEN).encode()))
    assert TOKEN not in shown
