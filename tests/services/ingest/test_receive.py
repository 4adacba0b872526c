"""What the door takes, what it refuses, and in which words. Real HTTP, real broker."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlencode

import pytest

from providers.port import Secret
from tests.services.ingest.door import BODY, PATH, SECRET, Door, head, request, signed

pytestmark = pytest.mark.anyio

FIXTURES = Path(__file__).parents[2] / "providers" / "github" / "fixtures"
OTHER = Secret("GITHUB_WEBHOOK_SECRET_2", b"another secret")


async def test_every_sample_is_stored_byte_for_byte_with_the_declared_headers(door: Door) -> None:
    paths = sorted(FIXTURES.glob("*/*.json"))
    before = datetime.now(UTC)
    for n, path in enumerate(paths, 1):
        body, event = path.read_bytes(), path.parent.name
        headers = {
            **signed(body, delivery=path.stem, event=event),
            "x-github-hook-id": "7",
            "x-other": "not kept",
        }
        answer = await door.client.post(PATH, content=body, headers=headers)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        assert answer.json() == {"ok": True, "delivery": f"github:{path.stem}", "seq": n, "duplicate": False}
    log = await door.stored()
    assert [delivery.body for delivery in log] == [path.read_bytes() for path in paths]
    for path, delivery in zip(paths, log, strict=True):
        event = path.parent.name
        assert (delivery.source, delivery.identity, delivery.kind) == ("github", path.stem, event)
        assert (delivery.via, delivery.verified_by) == ("webhook", SECRET.name)
        assert delivery.headers == {
            "x-github-event": event,
            "x-github-hook-id": "7",
            "content-type": "application/json",
        }
        assert before <= delivery.received_at <= datetime.now(UTC) + timedelta(seconds=1)


async def test_a_repeat_is_answered_as_a_duplicate_and_stored_once(door: Door) -> None:
    first, again = await door.post(), await door.post()
    assert first.json() == {"ok": True, "delivery": "github:d-1", "seq": 1, "duplicate": False}
    assert again.status_code == 200
    assert again.json() == {**first.json(), "duplicate": True}
    assert await door.count() == 1


async def test_of_many_equal_requests_at_once_one_is_stored(door: Door) -> None:
    answers = await asyncio.gather(*(door.post() for _ in range(30)))
    assert {answer.status_code for answer in answers} == {200}
    assert sorted(answer.json()["duplicate"] for answer in answers) == [False] + 29 * [True]
    assert await door.count() == 1


async def test_one_id_with_two_bodies_is_stored_twice_for_the_ledger_to_judge(door: Door) -> None:
    answers = [await door.post(body) for body in (b'{"a": 1}', b'{"a": 2}')]
    assert [answer.json()["duplicate"] for answer in answers] == [False, False]
    assert await door.count() == 2


async def test_a_form_is_stored_as_it_came(door: Door) -> None:
    body = urlencode({"payload": BODY.decode()}).encode()
    answer = await door.post(body, content_type="application/x-www-form-urlencoded")
    assert answer.status_code == 200
    (delivery,) = await door.stored()
    assert delivery.body == body
    assert delivery.headers["content-type"] == "application/x-www-form-urlencoded"


def without(name: str) -> dict[str, str]:
    return {header: value for header, value in signed().items() if header != name}


BAD = "sha256=" + 64 * "0"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        (without("x-hub-signature-256"), "missing_signature"),
        ({**signed(), "x-hub-signature-256": BAD}, "bad_signature"),
        ({**signed(), "x-hub-signature-256": signed()["x-hub-signature-256"].upper()}, "bad_signature"),
        (signed(secret=OTHER), "bad_signature"),
        (signed(secret=Secret("empty", b"")), "bad_signature"),
        (signed(BODY + b" "), "bad_signature"),
        ({**without("x-hub-signature-256"), "x-hub-signature": "sha1=" + 40 * "0"}, "missing_signature"),
    ],
)
async def test_who_cannot_sign_is_refused(door: Door, headers: dict[str, str], reason: str) -> None:
    await door.refused(401, reason, await door.client.post(PATH, content=BODY, headers=headers))


@pytest.mark.parametrize("order", [1, -1])
async def test_of_two_signatures_neither_counts(door: Door, order: int) -> None:
    genuine = signed()["x-hub-signature-256"]
    lines = [f"x-hub-signature-256: {value}\r\n" for value in (genuine, BAD)][::order]
    headers = {"content-length": str(len(BODY)), **without("x-hub-signature-256")}
    async with door.line() as line:
        await line.send(head("POST", PATH, headers)[:-2] + "".join(lines).encode() + b"\r\n" + BODY)
        await door.refused(401, "bad_signature", await line.reply())


@pytest.mark.parametrize(
    ("body", "how", "reason"),
    [
        (b"{", {}, "malformed_json"),
        (b"", {}, "malformed_json"),
        (b"[1]", {}, "malformed_json"),
        (b'{"a": NaN}', {}, "malformed_json"),
        (b"\xff\xfe", {}, "malformed_json"),
        (BODY, {"content_type": "application/x-www-form-urlencoded"}, "malformed_form"),
        (b"payload=%7B", {"content_type": "application/x-www-form-urlencoded"}, "malformed_form"),
        (BODY, {"content_type": "text/plain"}, "unsupported_content_type"),
        (BODY, {"content_type": ""}, "unsupported_content_type"),
        (BODY, {"delivery": "a b"}, "bad_delivery_id"),
        (BODY, {"delivery": 201 * "a"}, "bad_delivery_id"),
        (BODY, {"event": ""}, "bad_event"),
        (BODY, {"event": 65 * "a"}, "bad_event"),
    ],
)
async def test_a_signed_request_that_is_malformed_is_refused(
    door: Door, body: bytes, how: dict[str, str], reason: str
) -> None:
    await door.refused(400, reason, await door.post(body, **how))


@pytest.mark.parametrize(
    ("name", "reason"), [("x-github-delivery", "missing_delivery_id"), ("x-github-event", "missing_event")]
)
async def test_a_missing_header_is_named(door: Door, name: str, reason: str) -> None:
    answer = await door.client.post(PATH, content=BODY, headers=without(name))
    assert name in (await door.refused(400, reason, answer)).lower()


@pytest.mark.parametrize("name", ["x-github-delivery", "x-github-event", "content-type", "x-github-hook-id"])
async def test_header_bytes_outside_ascii_are_refused(door: Door, name: str) -> None:
    headers = {"content-length": str(len(BODY)), **signed(), name: "caf\xe9"}
    async with door.line() as line:
        await line.send(head("POST", PATH, headers) + BODY)
        assert name in await door.refused(400, "header_not_ascii", await line.reply())


async def test_a_stored_header_has_a_limit(door: Door) -> None:
    answer = await door.post(content_type="application/json; charset=" + 2000 * "u")
    assert "content-type" in await door.refused(400, "header_too_long", answer)


async def test_an_unknown_source_is_told_the_known_ones(door: Door) -> None:
    answer = await door.client.post("/webhooks/gitlab", content=BODY, headers=signed())
    assert await door.refused(404, "unknown_source", answer) == "no such source, known sources: github"


async def test_a_source_without_a_secret_says_which_to_set(door: Door) -> None:
    answer = await door.client.post("/webhooks/plane", content=BODY, headers=signed())
    assert "set PLANE_WEBHOOK_SECRET" in await door.refused(404, "source_closed", answer)


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "post", "FOO"]
)
async def test_only_post_is_taken(door: Door, method: str) -> None:
    headers = {"content-length": str(len(BODY)), **signed()}
    async with door.line() as line:
        await line.send(head(method, PATH, headers) + BODY)
        answer = await line.reply(body=method != "HEAD")
        assert (answer.status, answer.headers["allow"]) == (405, "post")
        if method == "HEAD":
            assert await door.count() == 0
        else:
            await door.refused(405, "method_not_allowed", answer)
        await line.send(request())
        assert (await line.reply()).status == 200


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/", "not_found"),
        ("//webhooks/github", "not_found"),
        ("/webhooks//github", "not_found"),
        ("/webhooks", "not_found"),
        ("/webhooks/", "not_found"),
        ("/webhooks/github/", "not_found"),
        ("/webhooks/github%2f", "not_found"),
        ("/webhooks/github%2fx", "unknown_source"),
        ("/webhooks/../webhooks/github", "not_found"),
        ("/webhooks/%2e%2e", "not_found"),
        ("/webhooks/GitHub", "unknown_source"),
        ("/webhooks/github%00", "not_found"),
        ("/webhooks/github%0a", "not_found"),
        ("/webhooks/%ff", "not_found"),
        ("/webhooks/" + 8000 * "a", "not_found"),
        ("/readyz", "not_found"),
        ("/metrics", "not_found"),
        ("*", "not_found"),
    ],
)
async def test_no_other_path_leads_in(door: Door, path: str, reason: str) -> None:
    async with door.line() as line:
        await line.send(head("POST", path, {"content-length": str(len(BODY)), **signed()}) + BODY)
        await door.refused(404, reason, await line.reply())


@pytest.mark.parametrize("path", [PATH + "?a=%ff", "http://door" + PATH, "/webhooks/git%68ub"])
async def test_other_spellings_of_the_path_are_the_same_path(door: Door, path: str) -> None:
    async with door.line() as line:
        await line.send(head("POST", path, {"content-length": str(len(BODY)), **signed()}) + BODY)
        assert (await line.reply()).status == 200


async def test_healthz_answers_on_the_public_port(door: Door) -> None:
    answer = await door.client.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"ok": True})


async def test_requests_of_one_connection_are_answered_in_turn(door: Door) -> None:
    async with door.line() as line:
        bad = head("POST", PATH, {"content-length": str(len(BODY))}) + BODY
        await line.send(request(delivery="a") + bad + request(delivery="b"))
        assert [(await line.reply()).status for _ in range(3)] == [200, 401, 200]


async def test_an_old_client_is_served(door: Door) -> None:
    async with door.line() as line:
        await line.send(request().replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert (await line.reply()).json()["ok"] is True


async def test_what_strangers_do_cannot_fill_the_log_or_the_metrics(door: Door) -> None:
    for n in range(50):
        await door.client.post(f"/webhooks/stranger-{n}", content=BODY)
        await door.client.post(PATH, content=BODY)
    lines = [(line["source"], line["status"], line["reason"]) for line in door.said("refused")]
    assert lines == [("unknown", 404, "unknown_source"), ("github", 401, "missing_signature")]
    assert "stranger" not in door.written.getvalue()
