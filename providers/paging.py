"""Reading a listing page by page, in whichever way its API names the next page. No I/O.

A `Following` gives the request for the next page. The first request is the caller's, with its page size and whatever
else it states; those that follow keep its parameters, and never its ETag, which is one page's own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import Any

from providers.polling import Ask, Failed, Reply, Step, ask

PAGES_MAX = 200

Following = Callable[[Ask, Reply, int], Ask | None]
"""The request for the next page, given the last one, its reply and the number of its page, from 1; None at the end."""
Handle = Callable[[Reply], Generator[Step, Any, bool]]
"""What is done with a page; whether the next one is wanted."""

_LINK = re.compile(r'<([^>]*)>((?:\s*;\s*[^\s;,="]+(?:\s*=\s*(?:"[^"]*"|[^\s;,"]*))?)*)')
_PARAMETER = re.compile(r';\s*([^\s;,="]+)\s*=\s*(?:"([^"]*)"|([^\s;,"]*))')


def each_page(
    first: Ask, following: Following, handle: Handle, pages_max: int = PAGES_MAX
) -> Generator[Step, Any, bool]:
    """Ask for a listing's pages and hand over each; whether its end was reached, rather than enough of it.

    Raises Failed for a page that shows what the one before it did, byte for byte, and for pages without an end.
    """
    asked: Ask | None = first
    met = set()
    body: bytes | None = None
    for page in range(1, pages_max + 1):
        if asked is None:
            return True
        if _request(asked) in met:
            raise Failed("endless_pages", f"page {page} of {first.path} is one that was asked for before")
        met.add(_request(asked))
        reply = yield from ask(asked)
        if reply.body == body:
            raise Failed("repeated_page", f"page {page} of {first.path} is the same as the one before it")
        body = reply.body
        if not (yield from handle(reply)):
            return False
        asked = following(asked, reply, page)
    if asked is None:
        return True
    raise Failed("endless_pages", f"{first.path} has more than {pages_max} pages")


def pages(first: Ask, following: Following, pages_max: int = PAGES_MAX) -> Generator[Step, Any, list[Reply]]:
    """All pages of a listing; raises Failed as `each_page` does."""
    replies: list[Reply] = []

    def collect(reply: Reply) -> Generator[Step, Any, bool]:
        replies.append(reply)
        return True
        yield  # a generator that has no step of its own

    yield from each_page(first, following, collect, pages_max)
    return replies


def by_link(asked: Ask, reply: Reply, page: int) -> Ask | None:
    """The next page is the whole address that the Link header calls `next` (RFC 8288)."""
    for address, relations in _links(reply.headers.get("link", "")):
        if "next" in relations:
            if not address.startswith(("https://", "http://")):
                raise Failed("bad_link", f"{asked.path}: the Link header names the next page by no address")
            return replace(asked, path=address, params={}, etag=None)
    return None


def by_page_number(size: int) -> Following:
    """The next page is `page` plus one, each of `size` things.

    The last page is the one whose `links.pages` has no `next` or, where the answer is a list, one that is not full.
    """

    def following(asked: Ask, reply: Reply, page: int) -> Ask | None:
        shown = reply.json()
        if not (len(shown) >= size if isinstance(shown, list) else _has_next(shown)):
            return None
        number = int(asked.params.get("page", "1")) + 1
        return _with(asked, {"page": str(number), "per_page": str(size)})

    return following


def by_cursor(name: str, read: Callable[[Reply], str | None]) -> Following:
    """The next page is named by the parameter `name`, whose value `read` finds in a reply; nothing is the end."""

    def following(asked: Ask, reply: Reply, page: int) -> Ask | None:
        cursor = read(reply)
        return _with(asked, {name: cursor}) if cursor else None

    return following


def entries(reply: Reply) -> int:
    """How many things a page that is a list shows; raises Failed."""
    shown = reply.json()
    if not isinstance(shown, list):
        raise Failed("not_a_page", "an answer is not a list")
    return len(shown)


def by_offset(limit: int, count: Callable[[Reply], int] = entries) -> Following:
    """The next page begins `limit` things later; the last one is that which is not full."""

    def following(asked: Ask, reply: Reply, page: int) -> Ask | None:
        if count(reply) < limit:
            return None
        offset = int(asked.params.get("offset", "0")) + limit
        return _with(asked, {"offset": str(offset), "limit": str(limit)})

    return following


def _request(asked: Ask) -> tuple[str, tuple[tuple[str, str], ...]]:
    return asked.path, tuple(sorted(asked.params.items()))


def _with(asked: Ask, params: dict[str, str]) -> Ask:
    return replace(asked, params={**asked.params, **params}, etag=None)


def _has_next(page: Any) -> bool:
    for name in ("links", "pages", "next"):
        page = page.get(name) if isinstance(page, dict) else None
    return bool(page)


def _links(header: str) -> Iterator[tuple[str, list[str]]]:
    """Each address of a Link header with its relations; only the first `rel` of a link counts."""
    for link in _LINK.finditer(header):
        for name, quoted, bare in _PARAMETER.findall(link[2]):
            if name.lower() == "rel":
                yield link[1], (quoted or bare).lower().split()
                break
