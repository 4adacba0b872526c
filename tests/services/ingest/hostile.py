"""What hostile senders say to the door, and what it is right to answer. Seeded: the same numbers, the same requests."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from providers.github import verify as github
from providers.mailgun import verify as mailgun
from providers.port import Parcel, Secret
from providers.slack import PROVIDER as SLACK
from providers.slack import verify as slack
from runtime import process, streams
from tests.providers.driving import source_of
from tests.services.ingest.door import BODY, Line, head

GITHUB_PATH, MAILGUN_PATH, SLACK_PATH = "/webhooks/github", "/webhooks/mailgun", "/webhooks/slack"
HUNG_UP = (0, "hung up")
"""In the place of an answer."""
JSON = {"content-type": "application/json"}
FORGED = "sha256=" + 64 * "0"
HEX = "0123456789abcdef"
NINE_HOURS_S = 9 * 3600
WAIT_S_MAX = 60.0
BOMB = gzip.compress(bytes(5_000_000), 1)
PIECE = b"10000\r\n" + 0x10000 * b"x" + b"\r\n"
"""64 KB in a chunk of their own."""

Verdict = tuple[int, str]
"""Status and reason of an answer; no reason where it did not come from us but from the server below."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One hostile request, as bytes for a socket."""

    kind: str
    says: bytes
    right: frozenset[Verdict]
    goes_on: bytes = b""
    """Said again and again until the door answers or hangs up."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a stranger may have got hold of."""

    github: Secret
    mailgun: Secret
    slack: Secret
    """The secrets themselves he has not: they sign what was once sent and is now stale or repeated."""


Make = Callable[[random.Random, Recorded], tuple[bytes, Sequence[Verdict]]]


def post(path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """A request whose body has the length that it says."""
    return head("POST", path, {"content-length": str(len(body)), **headers}) + body


def by_github(signature: str | None, **more: str) -> dict[str, str]:
    signed = {} if signature is None else {"x-hub-signature-256": signature}
    return {**JSON, "x-github-event": "ping", "x-github-delivery": "d-1", **signed, **more}


def wrong_signature(rng: random.Random, known: Recorded) -> tuple[bytes, Sequence[Verdict]]:
    made_up = "sha256=" + "".join(rng.choices(HEX, k=64))
    of_another = github.sign(BODY, Secret("OTHER", rng.randbytes(16)))["x-hub-signature-256"]
    signature = rng.choice([made_up, of_another, made_up.upper(), made_up[:20], "sha1=" + 40 * "0", "", None])
    reason = "missing_signature" if signature is None else "bad_signature"
    return post(GITHUB_PATH, by_github(signature), BODY), [(401, reason)]


def slow_body(rng: random.Random, known: Recorded) -> tuple[bytes, Sequence[Verdict]]:
    said = post(GITHUB_PATH, by_github(FORGED), 4_000 * b"x")
    return said[: -rng.randint(1, 4_000)], [(408, "body_too_slow")]


def slow_head(rng: random.Random, known: Recorded) -> tuple[bytes, Sequence[Verdict]]:
    said = head("POST", GITHUB_PATH, by_github(FORGED))
    return said[: rng.randrange(len(said) - 2)], [HUNG_UP, (408, "")]


def huge_headers(rng: random.Random, known: Recorded) -> tuple[bytes, Sequence[Verdict]]:
    large = rng.randint(2, 8) * process.HEAD_BYTES_MAX
    many = "".join(f"x-{n}: {n}\r\n" for n in range(rng.randint(200, 2_000)))
    long_name = f"{'n' * large}: 1\r\n"
    more = rng.choice([f"x: {'x' * large}\r\n", many, long_name, f"cookie: {'a=b;' * (large // 4)}\r\n"])
    said = post(GITHUB_PATH, by_github(FORGED), BODY).replace(b"host:", more.encode() + b"host:", 1)
    return said, [(431, ""), (400, ""), HUNG_UP]


def broken_framing(rng: random.Random, known: Recorded) -> tuple[bytes, Sequence[Verdict]]:
    length = f"content-length: {len(BODY)}".encode()
    both = length + b"\r\ntransfer-encoding: chunked"
    framing = rng.choice(
        [
            both,
            length + b"\r\ncontent-length: 1",
            b"content-length: -1",
            b"content-length: 1e3",
            b"transfer-encoding: chunked\r\ntransfer-encoding: identity",
            b"transfer-encoding: gzip, identity",
            b"transfer-encoding: chunked\r\nx: y",  # and then no chunk
        ]
    )
    said = post(GITHUB_PATH, by_github(FORGED), BODY).replace(length, framing, 1)
    return said, [(400, ""), (400, "body_incomplete"), (401, "bad_signature"), (501, ""), HUNG_UP]


def announced(rng: random.Random, known: Recorded) -> tuple[bytes, Sequence[Verdict]]:
    length = rng.randint(streams.BODY_BYTES_MAX + 1, 10**15)
    said = head("POST", GITHUB_PATH, {**by_github(FORGED), "content-length": str(length)})
    return said, [(413, "body_too_large")]


def many_chunks(rng: random.Random, known: Recorded) -> tuple[bytes, Sequence[Verdict]]:
    said = head("POST", GITHUB_PATH, {**by_github(FORGED), "transfer-encoding": "chunked"})
    return said + rng.randint(500, 3_000) * b"1\r\nx\r\n" + b"0\r\n\r\n", [(400, "too_many_chunks")]


def compressed(rng: random.Random, known: Recorded) -> tuple[bytes, Sequence[Verdict]]:
    encoding = {"content-encoding": rng.choice(["gzip", "gzip, gzip", "br", "deflate", "zstd"])}
    if rng.random() < 0.5:
        return post(MAILGUN_PATH, {**JSON, **encoding}, BOMB), [(406, "malformed_json")]
    return post(GITHUB_PATH, {**by_github(FORGED), **encoding}, BOMB), [(401, "bad_signature")]


PATHS = {
    "not_found": [
        "/", "//webhooks/github", "/webhooks//github", "/webhooks", "/webhooks/", "/webhooks/github/",
        "/webhooks/github%2f", "/webhooks/../webhooks/github", "/webhooks/%2e%2e", "/webhooks/github%00",
        "/webhooks/github%0a", "/webhooks/%ff", "/webhooks/" + 8_000 * "a", "/readyz", "/metrics", "*",
        "/webhooks/..%2f..%2fetc%2fpasswd", "/.env", "/webhooks/github;a=b", "/webhooks/github\\",
    ],
    "unknown_source": ["/webhooks/github%2fx", "/webhooks/GitHub", "/webhooks/wp-login", "/webhooks/a/b/c"],
}  # fmt: skip


def path_trick(rng: random.Random, known: Recorded) -> tuple[bytes, Sequence[Verdict]]:
    reason = rng.choice(list(PATHS))
    said = post(rng.choice(PATHS[reason]), {**by_github(None), **github.sign(BODY, known.github)}, BODY)
    return said, [(404, reason)]


METHODS = ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "post", "BREW", "M" * 60]


def method_trick(rng: random.Random, known: Recorded) -> tuple[bytes, Sequence[Verdict]]:
    headers = {**by_github(None), **github.sign(BODY, known.github), "x-http-method-override": "POST"}
    said = head(rng.choice(METHODS), GITHUB_PATH, {"content-length": str(len(BODY)), **headers}) + BODY
    return said, [(405, "method_not_allowed")]


def replayed_token(rng: random.Random, known: Recorded) -> tuple[bytes, Sequence[Verdict]]:
    """The same request again, days later, or with a token of his own under another's signature."""
    at, way = int(time.time()), rng.choice(["again", "stale", "exchanged"])
    token, at = "a-recorded-token", at - (2 * NINE_HOURS_S if way == "stale" else 60)
    pair = {"timestamp": str(at), "token": token, "signature": mailgun.sign(str(at), token, known.mailgun)}
    if way == "exchanged":
        pair["token"] = "".join(rng.choices(HEX, k=50))
    body = json.dumps({"signature": pair, "event-data": {"event": "opened"}}).encode()
    right = {
        "again": (200, "duplicate"),
        "stale": (406, "stale_signature"),
        "exchanged": (401, "bad_signature"),
    }
    return post(MAILGUN_PATH, JSON, body), [right[way], *([(200, "")] if way == "again" else [])]


def stale_timestamp(rng: random.Random, known: Recorded) -> tuple[bytes, Sequence[Verdict]]:
    away_s = rng.choice([-1, 1]) * rng.randint(slack.WINDOW_S + 60, 10**7)
    at = datetime.fromtimestamp(time.time() + away_s, UTC)
    body = b"command=%2Fdeploy&text=prod"
    made = slack.compose(Parcel(body=body, event="", delivery="", at=at), source_of(SLACK), known.slack)
    if rng.random() < 0.3:  # the old signature under a time of today
        fresh = {**made.headers, slack.TIMESTAMP: str(int(time.time()))}
        return post(SLACK_PATH, fresh, body), [(401, "bad_signature")]
    return post(SLACK_PATH, made.headers, body), [(401, "stale_timestamp")]


def json_bomb(rng: random.Random, known: Recorded) -> tuple[bytes, Sequence[Verdict]]:
    depth = rng.randint(10_000, 100_000)
    body = rng.choice(
        [
            depth * b"[",
            depth * b"[" + depth * b"]",
            depth * b'{"a":',
            b'{"signature": ' + 100_000 * b"9" + b"}",
            b'{"signature": 1e' + 50_000 * b"9" + b"}",
            b"{" + 20_000 * b'"a":1,' + b'"a":1}',
            b'{"a": "' + 30_000 * b"\\ud800" + b'"}',
            b"[" + 100_000 * b"0," + b"0]",
        ]
    )
    right = [
        (406, reason)
        for reason in ("malformed_json", "missing_signature", "shape_mismatch", "body_too_large")
    ]
    return post(MAILGUN_PATH, JSON, body), right


def endless_chunks(rng: random.Random, known: Recorded) -> tuple[bytes, Sequence[Verdict]]:
    said = head(
        "POST", rng.choice([GITHUB_PATH, "/nowhere"]), {**by_github(FORGED), "transfer-encoding": "chunked"}
    )
    right = [(413, "body_too_large"), (404, "not_found"), (503, "too_many_bytes"), HUNG_UP]
    return said, right


USUAL: Sequence[tuple[str, Make, int]] = (
    ("wrong signature", wrong_signature, 30),
    ("huge headers", huge_headers, 8),
    ("broken framing", broken_framing, 6),
    ("announced length", announced, 6),
    ("many chunks", many_chunks, 6),
    ("compressed body", compressed, 6),
    ("path trick", path_trick, 10),
    ("method trick", method_trick, 8),
    ("replayed Mailgun token", replayed_token, 8),
    ("stale Slack timestamp", stale_timestamp, 8),
    ("JSON bomb", json_bomb, 8),
)
"""Kinds, and how often each comes among the others."""


def attempts(seed: int, known: Recorded) -> Iterator[Attempt]:
    """Hostile requests without end, of all kinds that are answered at once; each kind is among the first."""
    rng = random.Random(seed)
    kinds = [(kind, make) for kind, make, _ in USUAL]
    more = (rng.choices(kinds, [weight for *_, weight in USUAL])[0] for _ in itertools.count())
    for kind, make in itertools.chain(kinds, more):
        said, right = make(rng, known)
        yield Attempt(kind, said, frozenset(right))


def slow(seed: int, known: Recorded) -> Iterator[Attempt]:
    """Senders that never finish: bodies, heads, and connections on which nothing is said."""
    rng = random.Random(seed)
    while True:
        for kind, make in (("slow body", slow_body), ("slow head", slow_head)):
            said, right = make(rng, known)
            yield Attempt(kind, said, frozenset(right))


def floods(seed: int, known: Recorded) -> Iterator[Attempt]:
    """Chunked bodies without end."""
    rng = random.Random(seed)
    while True:
        said, right = endless_chunks(rng, known)
        yield Attempt("chunked flood", said, frozenset(right), goes_on=PIECE)


async def answered(line: Line, attempt: Attempt) -> Verdict:
    """Say it, and read what is answered."""
    saying = asyncio.create_task(_say(line, attempt))
    try:
        async with asyncio.timeout(WAIT_S_MAX):
            reply = await line.reply()
    except (asyncio.IncompleteReadError, ConnectionError):
        return HUNG_UP
    finally:
        saying.cancel()
        await asyncio.wait({saying})
    try:
        said = reply.json()
    except ValueError:
        return reply.status, ""
    return reply.status, "duplicate" if said.get("duplicate") else said.get("reason", "")


async def _say(line: Line, attempt: Attempt) -> None:
    try:
        await line.send(attempt.says)
        while attempt.goes_on:
            await line.send(attempt.goes_on)
    except ConnectionError:
        return
