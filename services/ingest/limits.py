"""How much may be asked of the door: token buckets per source and per address. No I/O; seconds are arguments.

An address pays for what is refused or repeated, never for what is genuine and new: a token is taken when a request's
head is there, and given back when its delivery is stored. So an address holds at most `burst` requests in hand, too.
One that has sent something genuine is never limited again: senders share their addresses (anybody can have GitHub
post to us), and most of them do not come again after a refusal.

A source pays for what is genuine and new. Its bucket is asked after verification, so strangers cannot empty it, and
a repetition gives its token back: who has recorded a request cannot empty it either.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from contracts.ssot import Limit
from providers.port import Refused
from runtime import streams

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

V6_PREFIX_BITS = 64
"""Who has one address of IPv6 has that many."""
V4_SHOWN_BITS, V6_SHOWN_BITS = 24, 48
"""What of an address is written to the log: a provider's network, not a person's line."""
PARSED_COUNT_MAX, HOP_CHARS_MAX = 4_096, 64


@dataclass(slots=True)
class Bucket:
    """Full at first."""

    limit: Limit
    tokens: float
    at: float

    @classmethod
    def full(cls, limit: Limit, now: float) -> Bucket:
        return cls(limit, limit.burst, now)

    def take(self, now: float) -> float:
        """Take a token: 0 where there was one, else the seconds until there is."""
        self.tokens = min(self.limit.burst, self.tokens + max(0.0, now - self.at) * self.limit.per_s)
        self.at = now
        if self.tokens < 1:
            return (1 - self.tokens) / self.limit.per_s
        self.tokens -= 1
        return 0.0

    def give_back(self) -> None:
        """Undo a `take`."""
        self.tokens = min(self.limit.burst, self.tokens + 1)


class Limits:
    """The buckets of all sources and of at most `count_max` addresses. Without limits, nothing is refused."""

    def __init__(
        self,
        sources: Mapping[str, Limit] | None = None,
        addresses: Limit | None = None,
        count_max: int = streams.ADDRESSES_COUNT_MAX,
    ) -> None:
        self._limits = sources or {}
        self._of_addresses = addresses
        self._count_max = count_max
        self._sources: dict[str, Bucket] = {}
        self._strangers: OrderedDict[Address, Bucket] = OrderedDict()
        self._known: OrderedDict[Address, None] = OrderedDict()

    def admit(self, address: Address | None, now: float) -> None:
        """Take a token of an address before anything is read; raises Refused. None is nobody in particular."""
        if address is None or self._of_addresses is None:
            return
        if address in self._known:
            self._known.move_to_end(address)
            return
        bucket = self._strangers.get(address) or Bucket.full(self._of_addresses, now)
        self._strangers[address] = bucket
        self._strangers.move_to_end(address)
        self._forget(self._strangers)
        if (wait_s := bucket.take(now)) > 0:
            raise _limited(wait_s, "too many requests of this address were refused or repeated")

    def stranger(self, address: Address | None) -> Address | None:
        """The address, where it is limited and nothing genuine has come from it yet."""
        return None if self._of_addresses is None or address in self._known else address

    def take(self, source: str, address: Address | None, now: float) -> None:
        """Take a token of a source for a genuine request; raises Refused, and then the address does not pay."""
        if (limit := self._limits.get(source)) is None:
            return
        bucket = self._sources.setdefault(source, Bucket.full(limit, now))
        if (wait_s := bucket.take(now)) > 0:
            self._pardon(address)
            raise _limited(wait_s, f"{source} sends more than ssot lets it")

    def repeated(self, source: str) -> None:
        """The source does not pay for what was stored before."""
        if (bucket := self._sources.get(source)) is not None:
            bucket.give_back()

    def failed(self, source: str, address: Address | None) -> None:
        """Nobody pays for what we could not store."""
        self.repeated(source)
        self._pardon(address)

    def stored(self, address: Address | None, signed: bool) -> None:
        """The address does not pay for something new; if it was signed, it is limited no more."""
        if address is None or self._of_addresses is None:
            return
        if not signed:
            self._pardon(address)
            return
        self._strangers.pop(address, None)
        self._known[address] = None
        self._known.move_to_end(address)
        self._forget(self._known)

    def _pardon(self, address: Address | None) -> None:
        if address is not None and (bucket := self._strangers.get(address)) is not None:
            bucket.give_back()

    def _forget(self, of: OrderedDict[Address, Bucket] | OrderedDict[Address, None]) -> None:
        while len(of) > self._count_max:
            of.popitem(last=False)


def address_of(peer: str, forwarded: str | None, proxies: Sequence[Network]) -> Address | None:
    """Whom a request counts against: the last hop that is no trusted proxy; None where that cannot be said.

    Without trusted proxies it is the peer, if its address is public: any other may be a proxy nobody told us of,
    which speaks for all senders.
    """
    if not proxies:
        address = _parsed(peer)
        return _grouped(address) if address is not None and address.is_global else None
    for hop in reversed([*(forwarded.split(",") if forwarded else ()), peer]):
        address = _parsed(hop.strip()) if len(hop) <= HOP_CHARS_MAX else None  # what is parsed is remembered
        if address is None:
            return None
        if not any(address in each for each in proxies):
            return _grouped(address)
    return None


def network_of(address: Address) -> str:
    """What of an address may stand in the log."""
    bits = V4_SHOWN_BITS if address.version == 4 else V6_SHOWN_BITS
    return str(ip_network((address, bits), strict=False))


@lru_cache(PARSED_COUNT_MAX)
def _parsed(hop: str) -> Address | None:
    """The address of a hop, which may have a port: `192.0.2.7:4711`, `[2001:db8::1]:4711`."""
    text = hop[1:].partition("]")[0] if hop.startswith("[") else hop
    if text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _grouped(address: Address) -> Address:
    if isinstance(address, IPv4Address):
        return address
    low = address.max_prefixlen - V6_PREFIX_BITS
    return IPv6Address(int(address) >> low << low)


def _limited(wait_s: float, sentence: str) -> Refused:
    seconds = math.ceil(wait_s)
    return Refused(429, "rate_limited", f"{sentence}, send it again in {seconds} s", retry_after_s=seconds)
