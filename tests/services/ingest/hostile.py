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


def never_continued(rng: random.Random, known: Recorded) -> tuple[bytes, Sequence[Verdict]]:
    """Asks whether to go on, is told to, and does not."""
    expecting = {**by_github(FORGED), "content-length": "4000", "expect": "100-continue"}
    return head("POST", GITHUB_PATH, expecting), [(408, "body_too_slow")]


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


LENGTH = f"content-length: {len(BODY)}".encode()
NOT_HTTP: Sequence[Verdict] = [(400, "")]
FRAMINGS: Sequence[tuple[bytes, Verdict]] = (
    (LENGTH + b"\r\ntransfer-encoding: chunked", (400, "body_incomplete")),  # and then no chunk
    (b"transfer-encoding: chunked\r\nx: y", (400, "body_incomplete")),
    (LENGTH + b"\r\ncontent-length: 1", (400, "")),
    (b"content-length: -1", (400, "")),
    (b"content-length: +1", (400, "")),
    (b"content-length: 1e3", (400, "")),
    (b"content-length: 0x33", (400, "")),
    (b"content-length: 51, 51", (400, "")),
    (b"content-length:", (400, "")),
    (b"content-length: " + 5_000 * b"9", (400, "")),
    (b"content-length: 9223372036854775808", (413, "body_too_large")),
    (b"transfer-encoding: chunked\r\ntransfer-encoding: identity", (400, "")),
    (b"transfer-encoding: gzip, identity", (400, "")),
    (b"transfer-encoding : chunked", (400, "")),
)


def broken_framing(rng: random.Random, known: Recorded) -> tuple[bytes, Sequence[Verdict]]:
    framing, right = rng.choice(FRAMINGS)
    return post(GITHUB_PATH, by_github(FORGED), BODY).replace(LENGTH, framing, 1), [right]


def smuggled(rng: random.Random, known: Recorded) -> tuple[bytes, Sequence[Verdict]]:
    """A genuine request inside of another's body, by one of its two lengths: it must not be heard."""
    genuine = {**by_github(None), **github.sign(BODY, known.github), "x-github-delivery": "smuggled"}
    inner = post(GITHUB_PATH, genuine, BODY)
    lengths = [f"content-length: {len(inner) + 5}\r\n", "transfer-encoding: chunked\r\n"]
    rng.shuffle(lengths)
    outer = head("POST", GITHUB_PATH, by_github(FORGED)).replace(
        b"host:", "".join(lengths).encode() + b"host:", 1
    )
    return outer + b"0\r\n\r\n" + inner, [(401, "bad_signature")]


BROKEN_LINES = [
    b"x: folded\r\n into two", b"x: a\0b", b"x\0y: z", b"x y: z", b"x: a\rb: c", b": nameless", b"no colon",
    b"\xff\xfe: z",
]  # fmt: skip
NO_REQUESTS = [
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + 200 * b"\0",
    b"GET /\r\n\r\n",
    b"POST /webhooks/github HTTP/1.2\r\n\r\n", b"POST /webhooks/\x1b[31mgithub HTTP/1.1\r\n\r\n", b"\0" * 100,
    b"POST  /webhooks/github HTTP/1.1\r\n\r\n", b"{}\r\n\r\n",
]  # fmt: skip


def broken_head(rng: random.Random, known: Recorded) -> tuple[bytes, Sequence[Verdict]]:
    if rng.random() < 0.5:
        return rng.choice(NO_REQUESTS), [*NOT_HTTP, HUNG_UP]
    said = post(GITHUB_PATH, by_github(FORGED), BODY)
    return said.replace(b"host:", rng.choice(BROKEN_LINES) + b"\r\nhost:", 1), NOT_HTTP


def upgrade(rng: random.Random, known: Recorded) -> tuple[bytes, Sequence[Verdict]]:
    to = rng.choice(["h2c", "websocket", "TLS/1.3"])
    asked = {
        "connection": "upgrade",
        "upgrade": to,
        "sec-websocket-version": "13",
        "sec-websocket-key": 22 * "a" + "==",
    }
    if rng.random() < 0.5:
        return head("GET", GITHUB_PATH, asked), [(405, "method_not_allowed")]
    return post(GITHUB_PATH, {**by_github(FORGED), **asked}, BODY), [(401, "bad_signature")]


def long_query(rng: random.Random, known: Recorded) -> tuple[bytes, Sequence[Verdict]]:
    size = rng.choice([10_000, 50_000, 2 * process.HEAD_BYTES_MAX])
    said = post(f"{GITHUB_PATH}?{rng.choice(['a', 'token=%00&', '%'])}{size * 'a'}", by_github(FORGED), BODY)
    return said, [(414, ""), (431, "")] if size > process.HEAD_BYTES_MAX else [(401, "bad_signature")]


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


METHODS = [
    "GET",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "PROPFIND",
    "CONNECT",
    "post",
    "BREW",
    "M" * 6_000,
]


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
    ("smuggled request", smuggled, 4),
    ("broken head", broken_head, 4),
    ("upgrade", upgrade, 2),
    ("long query", long_query, 2),
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


SLOW: Sequence[tuple[str, Make]] = (
    ("slow body", slow_body),
    ("slow head", slow_head),
    ("never continued", never_continued),
)


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
        for kind, make in SLOW:
            said, right = make(rng, known)
            yield Attempt(kind, said, frozenset(right))


def pipelines(seed: int, known: Recorded) -> Iterator[Attempt]:
    """Many requests at once on one connection; the first answer is looked at."""
    rng = random.Random(seed)
    one = post(GITHUB_PATH, by_github(FORGED), BODY)
    while True:
        yield Attempt("pipelined requests", rng.randint(10, 500) * one, frozenset([(401, "bad_signature")]))


def hoards(seed: int, known: Recorded) -> Iterator[Attempt]:
    """Bodies as large as may be that come quickly but for their end: they are to fill the memory."""
    rng = random.Random(seed)
    right = frozenset([(408, "body_too_slow"), (503, "too_many_bytes")])
    while True:
        size = streams.BODY_BYTES_MAX // rng.choice([1, 1, 4, 16])
        said = head("POST", GITHUB_PATH, {**by_github(FORGED), "content-length": str(size)})
        yield Attempt("hoarded memory", said + (size - 1) * b"x", right)


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
        while (reply := await line.reply(wait_s=WAIT_S_MAX)).status == 100:
            pass
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
