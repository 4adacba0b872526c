"""A stand-in for Slack: a real HTTP server on loopback that speaks the part of its API that we use.

It stores what is posted, serves it as a channel's history in pages, and misbehaves as told: `slack.replies`
holds what the next posts get, `slack.history_replies` what the next searches get; then all is well again.
"""

from __future__ import annotations

import json
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.http_double import HttpDouble

TOKEN = "xoxb-test-token-that-nobody-may-see"
CHANNEL = "C0123ABCD"
WEBHOOK_PATH = "/services/T0/B0/secret-that-nobody-may-see"
WAIT_S_MAX = 30.0


@dataclass(frozen=True)
class Reply:
    """How one request is answered. The default is Slack on a good day."""

    status: int = 200
    error: str | None = None
    retry_after_s: int | None = None
    details: tuple[str, ...] = ()
    body: bytes | None = None
    """Sent instead of what Slack would say."""
    stores: bool | None = None
    """Whether the message is in the channel afterwards; by default, if the answer says so."""
    hangs: bool = False
    """Never answers, until the double ends or `release` is called."""
    after_s: float = 0.0
    """Takes so long to answer what it has done at once."""
    drops: bool = False
    """Closes the connection instead of answering."""

    @property
    def kept(self) -> bool:
        if self.stores is not None:
            return self.stores
        return (
            self.status == 200 and self.error is None and self.body is None and not (self.hangs or self.drops)
        )


GOOD = Reply()


@dataclass
class SlackDouble(HttpDouble):
    """The server. Use it as a context manager; its fields are what it got and what it will say."""

    page_size_max: int = 100
    replies: deque[Reply] = field(default_factory=deque)
    history_replies: deque[Reply] = field(default_factory=deque)
    default: Reply = GOOD
    """What posts get when `replies` is empty."""
    history_default: Reply = GOOD
    messages: list[dict[str, Any]] = field(default_factory=list)
    """What the channel holds, oldest first."""
    posts: list[dict[str, Any]] = field(default_factory=list)
    """Every body that was posted, whatever became of it."""
    post_times: list[float] = field(default_factory=list)
    searches: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._serve_by(self._handler())

    @property
    def api_url(self) -> str:
        """For SLACK_API_URL."""
        return f"{self.address}/api"

    @property
    def webhook_url(self) -> str:
        """For SLACK_WEBHOOK_URL."""
        return f"{self.address}{WEBHOOK_PATH}"

    @property
    def ids(self) -> list[str]:
        """Our ids of the messages in the channel."""
        return [message["metadata"]["event_payload"]["id"] for message in self.messages]

    def seed(self, message_id: str, ago_s: float = 0.0) -> str:
        """Put a message into the channel as if it had been posted; returns its ts."""
        metadata = {"event_type": "odooops_message", "event_payload": {"id": message_id}}
        return self._store({"text": "seeded", "metadata": metadata}, time.time() - ago_s)

    def release(self) -> None:
        """Let hanging requests go."""
        self._released.set()

    def wait_for_posts(self, count: int, wait_s: float = WAIT_S_MAX) -> None:
        """Block until `count` posts have come in all."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.posts) >= count, wait_s):
                raise TimeoutError(f"{len(self.posts)} of {count} posts came within {wait_s} s")

    def _store(self, message: dict[str, Any], at: float) -> str:
        ts = f"{at:.6f}"
        with self._changed:
            taken = {each["ts"] for each in self.messages}
            while ts in taken:
                ts = f"{float(ts) + 0.000001:.6f}"
            self.messages.append({"type": "message", "ts": ts, **message})
            self.messages.sort(key=lambda each: each["ts"])
        return ts

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        double = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the parent's name
                """Keep quiet."""

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                path = urlsplit(self.path).path
                if path == "/api/chat.postMessage":
                    double._posted(self, body, hook=False)
                elif path == WEBHOOK_PATH:
                    double._posted(self, body, hook=True)
                else:
                    double._send(self, 404, b"no_service", {})

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(parts.query).items()}
                if parts.path == "/api/conversations.history":
                    double._searched(self, query)
                else:
                    double._send(self, 404, b"no_service", {})

        return Handler

    def _posted(self, request: BaseHTTPRequestHandler, body: dict[str, Any], hook: bool) -> None:
        reply = self.replies.popleft() if self.replies else self.default
        said = None if hook else self._refusal(request, body.get("channel"))
        stored: dict[str, Any] = {key: body[key] for key in ("text", "blocks", "metadata") if key in body}
        ts = self._store(stored, time.time()) if said is None and reply.kept else None
        with self._changed:
            self.posts.append(body)
            self.post_times.append(time.monotonic())
            self._changed.notify_all()
        if said is None and reply.error is None:
            answer: dict[str, Any] = {"ok": True, "channel": CHANNEL, "ts": ts}
        else:
            answer = {"ok": False, "error": said or reply.error}
            if reply.details:
                answer["response_metadata"] = {"messages": list(reply.details)}
        text = (reply.error or "ok").encode() if hook else json.dumps(answer).encode()
        self._answer(request, reply, text)

    def _searched(self, request: BaseHTTPRequestHandler, query: dict[str, str]) -> None:
        reply = self.history_replies.popleft() if self.history_replies else self.history_default
        self.searches.append(query)
        error = self._refusal(request, query.get("channel")) or reply.error
        if error is not None:
            self._answer(request, reply, json.dumps({"ok": False, "error": error}).encode())
            return
        with self._changed:
            fitting = [m for m in reversed(self.messages) if float(m["ts"]) > float(query.get("oldest", "0"))]
        start = int(query.get("cursor") or 0)
        size = min(int(query.get("limit", "100")), self.page_size_max)
        page = [
            {k: v for k, v in m.items() if k != "metadata" or query.get("include_all_metadata") == "true"}
            for m in fitting[start : start + size]
        ]
        more = start + size < len(fitting)
        answer = {"ok": True, "messages": page, "has_more": more}
        if more:
            answer["response_metadata"] = {"next_cursor": str(start + size)}
        self._answer(request, reply, json.dumps(answer).encode())

    def _refusal(self, request: BaseHTTPRequestHandler, channel: object) -> str | None:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return "invalid_auth"
        return None if channel == CHANNEL else "channel_not_found"

    def _answer(self, request: BaseHTTPRequestHandler, reply: Reply, body: bytes) -> None:
        if reply.hangs or reply.after_s:
            self._released.wait(None if reply.hangs else reply.after_s)
        if reply.hangs or reply.drops:
            request.close_connection = True
            return
        headers = {} if reply.retry_after_s is None else {"Retry-After": str(reply.retry_after_s)}
        self._send(request, reply.status, body if reply.body is None else reply.body, headers)

    def _send(
        self, request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]
    ) -> None:
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)
