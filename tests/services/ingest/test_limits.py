"""Who may ask how much: the buckets by themselves, whom a request counts against, and what the door makes of both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from contracts.ssot import Limit, LimitsFile, ProviderFile, Ssot
from providers.generic import PROVIDER as GENERIC
from providers.port import Refused
from runtime import streams
from services.ingest.app import limits_of
from services.ingest.limits import Bucket, Limits, _parsed, address_of, network_of
from services.ingest.receive import Endpoint
from tests.providers.driving import source_of
from tests.services.ingest.door import BODY, GITHUB, PATH, Door, open_door, request, signed

if TYPE_CHECKING:
    from tests.conftest import Broker

ONE_A_SECOND = Limit(per_s=1, burst=2)
STRANGER, OTHER = ip_address("8.8.8.8"), ip_address("9.9.9.9")
PROXIES = (ip_network("127.0.0.0/8"), ip_network("10.0.0.0/8"))


def refused_after(limits: Limits, address: Any = STRANGER, now: float = 0.0) -> int:
    """How many requests of an address are admitted before the first that is not."""
    for count in range(1_000):
        try:
            limits.admit(address, now)
        except Refused:
            return count
    raise AssertionError("none was refused")


@given(
    st.floats(0.1, 1_000),
    st.integers(1, 50),
    st.lists(st.floats(0, 5), min_size=1, max_size=60),
)
def test_no_more_is_taken_than_the_limit_says(per_s: float, burst: int, waits: list[float]) -> None:
    bucket = Bucket.full(Limit(per_s=per_s, burst=burst), 0.0)
    now, taken = 0.0, 0
    for wait in waits:
        now += wait
        taken += bucket.take(now) == 0
    assert taken <= burst + per_s * now + 1e-6


@given(st.floats(0.1, 1_000), st.integers(1, 20), st.floats(0, 1_000))
def test_who_waits_as_long_as_is_said_is_taken(per_s: float, burst: int, now: float) -> None:
    bucket = Bucket.full(Limit(per_s=per_s, burst=burst), now)
    while (wait_s := bucket.take(now)) == 0:
        pass
    assert wait_s <= 1 / per_s + 1e-9
    assert bucket.take(now + wait_s + 1e-6) == 0


def test_a_clock_that_goes_back_gives_and_takes_nothing() -> None:
    bucket = Bucket.full(ONE_A_SECOND, 100.0)
    assert [bucket.take(100.0), bucket.take(99.0), bucket.take(98.0) > 0] == [0, 0, True]


def test_an_address_pays_for_what_is_refused_and_others_do_not() -> None:
    limits = Limits(addresses=ONE_A_SECOND)
    assert refused_after(limits) == 2
    assert refused_after(limits, OTHER) == 2
    assert refused_after(limits, now=2.0) == 2


def test_the_refusal_says_when_to_come_again() -> None:
    limits = Limits(addresses=Limit(per_s=0.3, burst=1))
    limits.admit(STRANGER, 0.0)
    with pytest.raises(Refused) as refused:
        limits.admit(STRANGER, 0.0)
    assert (refused.value.status, refused.value.reason, refused.value.retry_after_s) == (
        429,
        "rate_limited",
        4,
    )


def test_a_genuine_sender_is_not_limited_by_what_others_send_from_its_address() -> None:
    limits = Limits(addresses=ONE_A_SECOND)
    limits.admit(STRANGER, 0.0)
    limits.stored(STRANGER, signed=True)
    for _ in range(100):
        limits.admit(STRANGER, 0.0)


def test_what_nobody_signed_makes_no_address_known() -> None:
    limits = Limits(addresses=ONE_A_SECOND)
    for _ in range(100):
        limits.admit(STRANGER, 0.0)
        limits.stored(STRANGER, signed=False)
    assert refused_after(limits) == 2


def test_a_failure_of_ours_costs_nobody_anything() -> None:
    limits = Limits({"github": ONE_A_SECOND}, ONE_A_SECOND)
    for _ in range(100):
        limits.admit(STRANGER, 0.0)
        limits.take("github", STRANGER, 0.0)
        limits.failed("github", STRANGER)


def test_a_source_over_its_limit_is_refused_and_its_address_does_not_pay() -> None:
    limits = Limits({"github": ONE_A_SECOND}, ONE_A_SECOND)
    for _ in range(50):
        limits.admit(STRANGER, 0.0)
        try:
            limits.take("github", STRANGER, 0.0)
        except Refused:
            continue
        limits.stored(STRANGER, signed=False)
    assert refused_after(limits) == 2
    limits.take("plane", STRANGER, 0.0)


def test_addresses_remembered_are_bounded_and_strangers_push_out_no_known_one() -> None:
    limits = Limits(addresses=ONE_A_SECOND, count_max=10)
    limits.admit(STRANGER, 0.0)
    limits.stored(STRANGER, signed=True)
    for n in range(1_000):
        limits.admit(ip_address(n), 0.0)
    for _ in range(10):
        limits.admit(STRANGER, 0.0)
    assert len(limits._strangers) == 10
    for n in range(1_000):
        limits.stored(ip_address(n), signed=True)
    assert len(limits._known) == 10


@pytest.mark.parametrize(
    ("peer", "forwarded", "proxies", "expected"),
    [
        ("8.8.8.8", None, (), "8.8.8.8"),
        ("8.8.8.8", "1.1.1.1", (), "8.8.8.8"),
        ("127.0.0.1", "1.1.1.1", (), None),
        ("172.18.0.1", None, (), None),
        ("8.8.8.8", "1.1.1.1", PROXIES, "8.8.8.8"),
        ("127.0.0.1", "1.1.1.1", PROXIES, "1.1.1.1"),
        ("127.0.0.1", "6.6.6.6, 1.1.1.1", PROXIES, "1.1.1.1"),
        ("127.0.0.1", "6.6.6.6, 1.1.1.1, 10.1.2.3", PROXIES, "1.1.1.1"),
        ("127.0.0.1", "192.168.1.7", PROXIES, "192.168.1.7"),
        ("127.0.0.1", "1.1.1.1:4711", PROXIES, "1.1.1.1"),
        ("127.0.0.1", "[2606:4700::1111]:4711", PROXIES, "2606:4700::"),
        ("127.0.0.1", "2606:4700:1:2:3:4:5:6", PROXIES, "2606:4700:1:2::"),
        ("::ffff:127.0.0.1", "::ffff:1.1.1.1", PROXIES, "1.1.1.1"),
        ("127.0.0.1", None, PROXIES, None),
        ("127.0.0.1", "10.0.0.1", PROXIES, None),
        ("127.0.0.1", "1.1.1.1, unknown", PROXIES, None),
        ("127.0.0.1", "", PROXIES, None),
        ("a socket", None, (), None),
    ],
)
def test_a_request_counts_against_the_last_hop_that_is_no_proxy(
    peer: str, forwarded: str | None, proxies: Any, expected: str | None
) -> None:
    found = address_of(peer, forwarded, proxies)
    assert (None if found is None else str(found)) == expected


def test_a_forged_hop_of_any_length_is_not_remembered() -> None:
    address_of("127.0.0.1", "1.1.1.1", PROXIES)
    before = _parsed.cache_info().currsize
    assert address_of("127.0.0.1", f"1.1.1.1, {60_000 * 'x'}", PROXIES) is None
    assert _parsed.cache_info().currsize == before


@given(st.text(max_size=60), st.text(max_size=30))
def test_no_text_of_a_header_breaks_it(forwarded: str, peer: str) -> None:
    address_of(peer, forwarded, PROXIES)
    address_of("127.0.0.1", forwarded, PROXIES)


def test_the_log_shows_a_network_and_no_address() -> None:
    assert network_of(ip_address("203.0.113.77")) == "203.0.113.0/24"
    assert network_of(ip_address("2001:db8:1:2:3:4:5:6")) == "2001:db8:1::/48"


def test_ssot_says_the_limits() -> None:
    file = ProviderFile(name="github", limits=ONE_A_SECOND)
    plane = ProviderFile(name="plane")
    declared = Ssot(
        providers={"github": file, "plane": plane},
        limits=LimitsFile(sources=Limit(per_s=1, burst=1), addresses=Limit(per_s=1, burst=3)),
    )
    limits = limits_of(declared)
    assert refused_after(limits) == 3
    for source, burst in (("github", 2), ("plane", 1)):
        for _ in range(burst):
            limits.take(source, None, 0.0)
        with pytest.raises(Refused, match=f"{source} sends more"):
            limits.take(source, None, 0.0)


@pytest.mark.parametrize("wrong", [{"per_s": 0, "burst": 1}, {"per_s": 1, "burst": 0}, {"per_s": 1}])
def test_a_limit_that_lets_nothing_in_is_none(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Limit.model_validate(wrong)


# At the door.

UNSIGNED = Endpoint(
    source_of(GENERIC, "bell", unsigned=True, options={"verify": "none", "kind": {"constant": "rung"}}), list
)
FROM = "x-forwarded-for"


@asynccontextmanager
async def limited(broker: Broker, addresses: Limit, **sources: Limit) -> AsyncIterator[Door]:
    """A door behind a proxy on this machine."""
    limits = Limits(sources, addresses)
    async with open_door(broker.url, broker.js, [*GITHUB, UNSIGNED], limits=limits, proxies=PROXIES) as door:
        yield door


async def of(door: Door, address: str, delivery: str = "d-1", **headers: str) -> httpx.Response:
    """The answer to a request that comes from an address by the proxy."""
    return await door.client.post(
        PATH, content=BODY, headers={**signed(delivery=delivery), FROM: address, **headers}
    )


FORGED = {"x-hub-signature-256": "sha256=" + 64 * "0"}
SLOWLY = Limit(per_s=0.01, burst=3)


@pytest.mark.anyio
async def test_a_flood_of_forgeries_is_sent_away_and_nobody_else(broker: Broker) -> None:
    async with limited(broker, SLOWLY) as door:
        answers = [await of(door, "6.6.6.6", **FORGED) for _ in range(6)]
        assert [each.status_code for each in answers] == [401, 401, 401, 429, 429, 429]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 100
        assert answers[-1].json()["reason"] == "rate_limited"
        assert (await of(door, "6.6.6.6, 7.7.7.7")).status_code == 200
        assert await door.count() == 1


@pytest.mark.anyio
async def test_a_forger_who_shares_the_address_of_the_sender_starves_nobody(broker: Broker) -> None:
    async with limited(broker, SLOWLY) as door:
        assert (await of(door, "6.6.6.6", "first")).status_code == 200
        for _ in range(6):
            assert (await of(door, "6.6.6.6", **FORGED)).status_code == 401
        assert (await of(door, "6.6.6.6", "second")).status_code == 200


@pytest.mark.anyio
async def test_forgeries_and_repetitions_cost_the_source_nothing(broker: Broker) -> None:
    async with limited(broker, Limit(per_s=1, burst=100), github=Limit(per_s=0.01, burst=2)) as door:
        assert (await of(door, "7.7.7.7", "first")).status_code == 200
        for n in range(4):
            assert (await of(door, f"6.6.6.{n}", **FORGED)).status_code == 401
            assert (await of(door, "6.6.6.6", "first")).json()["duplicate"] is True
        assert (await of(door, "7.7.7.7", "second")).status_code == 200
        over = await of(door, "7.7.7.7", "third")
        assert (over.status_code, over.json()["reason"]) == (429, "rate_limited")
        assert 1 <= int(over.headers["retry-after"]) <= 100
        assert await door.count() == 2


@pytest.mark.anyio
async def test_who_repeats_a_recorded_request_pays_for_it(broker: Broker) -> None:
    async with limited(broker, SLOWLY) as door:
        assert (await of(door, "7.7.7.7")).status_code == 200
        answers = [(await of(door, "6.6.6.6")).status_code for _ in range(5)]
        assert answers == [200, 200, 200, 429, 429]


@pytest.mark.anyio
async def test_the_body_of_who_is_over_the_limit_is_not_waited_for(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "LIMITED_DRAIN_S_MAX", 0.1)
    async with limited(broker, Limit(per_s=0.01, burst=1)) as door:
        await of(door, "6.6.6.6", **FORGED)
        by_proxy = request(sent=1).replace(b"host:", b"x-forwarded-for: 6.6.6.6\r\nhost:")
        huge = by_proxy.replace(f"content-length: {len(BODY)}".encode(), b"content-length: 25000000")
        for head in (by_proxy, huge):
            async with door.line() as line, asyncio.timeout(5):
                await line.send(head)
                assert (await line.reply()).status == 429
                assert await line.closed()


@pytest.mark.anyio
async def test_requests_in_hand_of_an_address_are_bounded(broker: Broker) -> None:
    async with limited(broker, Limit(per_s=0.01, burst=2)) as door:
        by_proxy = request(sent=1).replace(b"host:", b"x-forwarded-for: 6.6.6.6\r\nhost:")
        async with door.line() as first, door.line() as second, door.line() as third:
            for line in (first, second):
                await line.send(by_proxy)
            await door.holds(2)
            await third.send(by_proxy + BODY[1:])
            assert (await third.reply()).status == 429
            await first.send(BODY[1:])
            assert (await first.reply()).status == 200


@pytest.mark.anyio
async def test_what_is_refused_is_logged_with_its_network_and_without_its_secrets(broker: Broker) -> None:
    async with limited(broker, SLOWLY) as door:
        for n in range(9):
            await door.client.post(
                f"{PATH}?token=in-the-query",
                content=b'{"token": "in-the-body"}',
                headers={
                    **signed(),
                    **FORGED,
                    FROM: f"6.6.6.{100 + n}",
                    "authorization": "Bearer in-the-head",
                },
            )
        (line,) = door.said("refused")
        assert line == {
            "event": "refused",
            "level": "info",
            "source": "github",
            "status": 401,
            "reason": "bad_signature",
            "network": "6.6.6.0/24",
        }
        written = door.written.getvalue()
        for secret in ("in-the-", "6.6.6.1", "sha256=", "Bearer"):
            assert secret not in written
