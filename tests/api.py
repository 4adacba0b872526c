"""A provider's API for tests: a real HTTP server on loopback with a table of routes, which misbehaves as told.

    with Api() as api:
        api.routes["/issues"] = by_link(issues, size=2)      # a listing, in pages
        api.routes["/issues/7"] = Reply({"number": 7})       # one answer, always
        api.next("/issues", TOO_MANY, BROKEN)                # what the next two requests get instead
        …
        assert api.count("/issues") == 3

The lists that listings are made of may change at any time: each page shows what is there when it is asked for.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from itertools import count
from time import time
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from tests.http_double import HttpDouble

WAIT_S_MAX = 20.0
PAGE_SIZE = 100


@dataclass(frozen=True)
class Call:
    """A request as it came. Header names are lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    origin: str
    """Where the server is, to make whole addresses of."""

    def number(self, name: str, otherwise: int) -> int:
        """A number of the query."""
        return int(self.query.get(name, otherwise))

    def with_query(self, **changed: object) -> str:
        """The whole address of the same request with other parameters."""
        query = {**self.query, **{name: str(value) for name, value in changed.items()}}
        return f"{self.origin}{self.path}?{urlencode(query)}"


@dataclass(frozen=True)
class Reply:
    """How a request is answered. A body that is no bytes is sent as JSON."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    hangs: bool = False
    """Never answers, until `release` is called or the server ends."""
    drops: bool = False
    """Closes the connection instead of answering."""

    def and_headers(self, **headers: object) -> Reply:
        """The same with more headers; `_` in a name stands for `-`."""
        named = {name.replace("_", "-"): str(value) for name, value in headers.items()}
        return replace(self, headers={**self.headers, **named})


Handler = Callable[[Call], Reply]
Live = Sequence[Any] | Callable[[], Sequence[Any]]
"""A list that may change, or what makes it anew."""

NOT_FOUND = Reply({"message": "Not Found"}, 404)
BROKEN = Reply(b'{"things": [{"id": 1}, {"id"', headers={"content-type": "application/json"})
BAD_GATEWAY = Reply(b"<html>bad gateway</html>", 502)
HANGS = Reply(hangs=True)
DROPS = Reply(drops=True)


def too_many(retry_after_s: int | None = 0) -> Reply:
    """429, with or without Retry-After."""
    said = Reply({"message": "Too Many Requests"}, 429)
    return said if retry_after_s is None else said.and_headers(retry_after=retry_after_s)


def forbidden(remaining: int = 0, limit: int = 5000, reset_in_s: float = 0, **headers: object) -> Reply:
    """403 with the headers of a rate limit that GitHub and others send."""
    return limited(
        Reply({"message": "API rate limit exceeded"}, 403), remaining, limit, reset_in_s
    ).and_headers(**headers)


def limited(reply: Reply, remaining: int, limit: int = 5000, reset_in_s: float = 0) -> Reply:
    """An answer that says how many requests are left."""
    return reply.and_headers(
        x_ratelimit_limit=limit,
        x_ratelimit_remaining=remaining,
        x_ratelimit_reset=int(time() + reset_in_s),
    )


def by_link(things: Live, size: int = PAGE_SIZE) -> Handler:
    """A listing as GitHub makes it: a list, `page` and `per_page` in the query, the next page in the Link header."""

    def handle(call: Call) -> Reply:
        page, per_page = call.number("page", 1), call.number("per_page", size)
        shown = _now(things)
        start = (page - 1) * per_page
        reply = Reply(shown[start : start + per_page])
        if start + per_page >= len(shown):
            return reply
        return reply.and_headers(link=f'<{call.with_query(page=page + 1)}>; rel="next"')

    return handle


def by_number(things: Live, name: str, size: int = PAGE_SIZE) -> Handler:
    """A listing as DigitalOcean makes it: the things by their `name`, the next page in `links`, how many in `meta`."""

    def handle(call: Call) -> Reply:
        page, per_page = call.number("page", 1), call.number("per_page", size)
        shown = _now(things)
        start = (page - 1) * per_page
        more = start + per_page < len(shown)
        pages = {"pages": {"next": call.with_query(page=page + 1)}} if more else {}
        body = {name: shown[start : start + per_page], "links": pages, "meta": {"total": len(shown)}}
        return Reply(body)

    return handle


Shape = Callable[[list[Any], str | None, int], Any]
"""The body of a page: its things, the next cursor, how many things there are in all."""


def by_cursor(things: Live, shape: Shape, parameter: str = "cursor", size: int = PAGE_SIZE) -> Handler:
    """A listing by cursors, which are offsets in disguise; `shape` writes a page's body."""

    def handle(call: Call) -> Reply:
        start = call.number(parameter, 0)
        shown = _now(things)
        end = start + size
        return Reply(shape(list(shown[start:end]), str(end) if end < len(shown) else None, len(shown)))

    return handle


def by_offset(things: Live, size: int = PAGE_SIZE) -> Handler:
    """A listing by `offset` and `limit`."""

    def handle(call: Call) -> Reply:
        start = call.number("offset", 0)
        return Reply(_now(things)[start : start + call.number("limit", size)])

    return handle


def endless(page: Any) -> Handler:
    """A listing by Link header that shows one page for ever, each time as a new one."""
    numbers = count(2)
    return lambda call: Reply(page).and_headers(link=f'<{call.with_query(page=next(numbers))}>; rel="next"')


def after(handler: Handler, calls: int, act: Callable[[], object]) -> Handler:
    """The same, and `act` is called once when so many requests were answered: something changes meanwhile."""
    numbers = count(1)

    def handle(call: Call) -> Reply:
        reply = handler(call)
        if next(numbers) == calls:
            act()
        return reply

    return handle


class Api(HttpDouble):
    """The server. Use it as a context manager; `routes` is what it serves, `calls` what it was asked."""

    def __init__(self) -> None:
        self.routes: dict[str, Handler | Reply] = {}
        """By path; what has no route is a 404."""
        self.calls: list[Call] = []
        self._next: defaultdict[str, deque[Reply]] = defaultdict(deque)
        self._serve_by(self._request_handler())

    def next(self, path: str, *replies: Reply) -> None:
        """What the next requests of a path get instead of what its route says."""
        with self._changed:
            self._next[path].extend(replies)

    def asked(self, path: str) -> list[Call]:
        """The requests of a path, whatever became of them."""
        with self._changed:
            return [call for call in self.calls if call.path == path]

    def count(self, path: str | None = None) -> int:
        """How many requests there were, of one path or in all."""
        return len(self.calls) if path is None else len(self.asked(path))

    def wait(self, path: str, calls: int = 1, wait_s: float = WAIT_S_MAX) -> None:
        """Until a path was asked for so often; raises TimeoutError. Blocks: call it in a thread."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.asked(path)) >= calls, wait_s):
                raise TimeoutError(f"{path} was asked for {len(self.asked(path))} times, expected {calls}")

    def release(self) -> None:
        """Let go of the requests that hang."""
        self._released.set()

    def _reply(self, call: Call) -> Reply:
        with self._changed:
            self.calls.append(call)
            self._changed.notify_all()
            if self._next[call.path]:
                return self._next[call.path].popleft()
            route = self.routes.get(call.path, NOT_FOUND)
            return route if isinstance(route, Reply) else route(call)

    def _request_handler(api) -> type[BaseHTTPRequestHandler]:  # noqa: N805  # `self` is the handler's
        class Requests(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:  # the name that http.server calls
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                reply = api._reply(
                    Call(
                        method=self.command,
                        path=parts.path,
                        query=dict(parse_qsl(parts.query, keep_blank_values=True)),
                        headers={name.lower(): value for name, value in self.headers.items()},
                        body=body,
                        origin=api.address,
                    )
                )
                if reply.hangs:
                    api._released.wait()
                if reply.hangs or reply.drops:
                    self.close_connection = True
                    return
                sent = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
                if reply.status == 304:
                    sent = b""
                self.send_response(reply.status)
                for name, value in {**reply.headers, "Content-Length": str(len(sent))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(sent)

            do_POST = do_PATCH = do_GET  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        return Requests


def _now(things: Live) -> list[Any]:
    return list(things() if callable(things) else things)
