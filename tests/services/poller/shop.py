"""A provider of tests' own, a source of it, and parts that read its API."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from contracts.observation import observed_body
from contracts.ssot import Api as DeclaredApi
from providers.paging import by_link, each_page
from providers.polling import Ask, Listed, Look, Part, Polling, Reply, Scope, Show, Step, Steps
from providers.port import Item, Provider, Source
from tests.providers.driving import source_of

TOKEN = "token-that-nobody-may-see"
SECRET = "SHOP_TOKEN"
EVERY_S = 600


def item(thing: dict[str, Any], kind: str = "thing", *, undated: bool = False) -> Item:
    """Of a thing with an `id`."""
    return Item(
        ref=f"shop:{kind}/{thing['id']}", kind=kind, body=observed_body("things", thing), undated=undated
    )


def things(path: str, kind: str = "thing", *, undated: bool = False) -> Part:
    """A part that reads a listing by Link header: it shows each page, then says that it was the whole."""

    def read(look: Look) -> Steps:
        shown: list[str] = []
        replies: list[Reply] = []

        def handle(reply: Reply) -> Generator[Step, Any, bool]:
            items = [item(thing, kind, undated=undated) for thing in reply.json()]
            replies.append(reply)
            shown.extend(each.ref for each in items)
            yield Show(items=items, fetched_at=reply.fetched_at)
            return True

        yield from each_page(Ask(path=path), by_link, handle)
        yield Listed(scope=f"{look.scope}{path}", shown={kind: shown}, began_at=replies[0].asked_at)

    return read


def scope(name: str = "all", **parts: Part) -> Scope:
    """What is polled; by default one listing."""
    return Scope(name=name, parts=parts or {"things": things("/things")})


def shop(
    address: str, scopes: Sequence[Scope] = (), polling: Polling | None = None, name: str = "shop", **api: Any
) -> Source:
    """The source, with its API at `address`."""
    chosen = list(scopes) or [scope()]
    provider = Provider(
        name="shop",
        verify=None,
        normalize=lambda delivery, source: [],
        compose=None,
        polling=polling or Polling(scopes=lambda source: chosen),
    )
    declared = DeclaredApi.model_validate({"base_url": address, "auth": "bearer", "secret": SECRET, **api})
    return source_of(provider, name, api=declared, poll_interval_s=EVERY_S)
