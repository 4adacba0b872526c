"""`odooops poll`, with a real broker and a real server that plays the API."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cli import poll
from cli.main import main
from contracts.webhooks import WebhookFailing
from providers import registry
from providers.polling import Ask, Look, Say, Steps
from services.poller import turn
from services.poller.lease import Leases
from tests import api as apis
from tests.api import by_link, too_many
from tests.services.poller.conftest import hurry, store
from tests.services.poller.running import Shop, statuses
from tests.services.poller.shop import SECRET, TOKEN, scope, shop, things

__all__ = ["hurry", "store"]  # fixtures
pytestmark = pytest.mark.anyio


class Polling:
    """The command beside the test's event loop."""

    def __init__(self, store: Shop, capsys: pytest.CaptureFixture[str]) -> None:
        self.store, self.capsys = store, capsys

    async def __call__(self, *arguments: str, code: int = 0) -> str:
        """What the command printed, on either stream."""
        given = await asyncio.to_thread(main, ["poll", *arguments])
        told = self.capsys.readouterr()
        assert given == code, told.err
        assert TOKEN not in told.out + told.err
        return told.out + told.err


@pytest.fixture
def polling(
    store: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Polling:
    """A source `shop` with two scopes, declared in a folder of its own."""
    scopes = [scope("one"), scope("two", things=things("/things"), orders=things("/orders", "order"))]
    source = shop(store.api.address, scopes)
    monkeypatch.setattr(registry, "PROVIDERS", {"shop": source.provider})
    (tmp_path / "ssot" / "providers").mkdir(parents=True)
    (tmp_path / "ssot" / "providers" / "shop.yaml").write_text(
        f"name: shop\npoll_interval_s: 600\n"
        f"api: {{base_url: '{store.api.address}', auth: bearer, secret: {SECRET}}}\n"
    )
    for name in ("ODOOOPS_DATA_DIR", "NATS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ODOOOPS_SSOT_DIR", str(tmp_path / "ssot"))
    monkeypatch.setenv("NATS_URL_POLLER", store.broker.url("poller"))
    monkeypatch.setenv(SECRET, TOKEN)
    monkeypatch.chdir(tmp_path)
    store.api.routes["/things"] = by_link([{"id": 1}, {"id": 2}], size=1)
    store.api.routes["/orders"] = by_link([{"id": 3}])
    return Polling(store, capsys)


async def test_all_scopes_are_polled_and_what_was_found_is_printed(polling: Polling) -> None:
    printed = (await polling("shop")).splitlines()
    assert [line.split() for line in printed[2:]] == [
        ["one", "success", "2", "2", "0", "0", "2"],
        ["two", "success", "3", "1", "0", "0", "3"],
    ]
    assert printed[0].split() == ["scope", "status", "seen", "new", "changed", "gone", "calls"]
    starts = await polling.store.starts()
    assert [(start.scope, start.triggered_by) for start in starts] == [("one", "manual"), ("two", "manual")]


async def test_one_scope_may_be_chosen_and_json_printed(polling: Polling) -> None:
    polling.store.api.routes["/orders"] = apis.NOT_FOUND
    printed = json.loads(await polling("shop", "--scope", "two", "--json", code=1))
    (polled,) = printed["scopes"]
    assert (printed["ok"], printed["source"]) == (False, "shop")
    assert (polled["status"], polled["counts"]["new"]) == ("partial", 2)
    assert polled["errors"] == [
        {
            "ok": False,
            "part": "orders",
            "error": f"GET /orders answered 404: Not Found; is it there, and may {SECRET} see it?",
            "code": "http_404",
        }
    ]


async def test_parts_that_fail_are_named_with_the_reason(polling: Polling) -> None:
    polling.store.api.routes["/orders"] = apis.BROKEN
    printed = await polling("shop", "--scope", "two", code=1)
    assert "two orders: an answer is not JSON (not_json)" in printed


async def test_nothing_more_is_asked_of_an_api_that_wants_to_be_left_alone(polling: Polling) -> None:
    polling.store.api.routes["/things"] = too_many(900)
    printed = await polling("shop", code=1)
    assert "two: the API is not to be asked again before" in printed
    assert polling.store.api.count() == 1


async def test_a_dry_run_prints_and_stores_nothing(polling: Polling) -> None:
    printed = await polling("shop", "--scope", "one", "--dry-run")
    assert "new: thing shop:thing/1\n" in printed
    assert (await polling.store.log(), await polling.store.remembered()) == ([], 0)


async def test_an_alarm_that_a_run_says_is_printed_too(
    polling: Polling, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(look: Look) -> Steps:
        off = WebhookFailing(
            source="shop", ref="shop:hook/1", occurred_at=look.started_at, scope="one", problem="it is off"
        )
        yield Say(off)

    monkeypatch.setattr(poll, "scopes_of", lambda source: [scope("one", hook=read)])
    assert "shop, webhook of one: it is off\n" in await polling("shop")


async def test_a_time_to_come_is_refused(polling: Polling) -> None:
    assert "--since is later than now" in await polling("shop", "--since", "2999-01-01", code=2)
    assert 0 == polling.store.api.count()


async def test_since_is_told_to_the_parts(polling: Polling, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    def read(look: Look) -> Steps:
        told.append(look.since)
        yield Ask(path="/orders")

    monkeypatch.setattr(poll, "scopes_of", lambda source: [scope("one", things=read)])
    await polling("shop", "--since", "2026-01-31T12:00")
    await polling("shop")
    assert told == [datetime(2026, 1, 31, 12, tzinfo=UTC), None]


async def test_a_run_in_progress_elsewhere_is_left_alone_and_told(
    polling: Polling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poll, "LOOK_S", 0.02)
    work = polling.store.work("another", renew_s=0.02)
    ordered, _ = polling.store.ordered(scope("one"), work)
    held = await turn.begin(work, ordered, await work.leases.look("shop", "one"))
    assert held is not None
    keeping = asyncio.create_task(held.keep())
    printed = await polling("shop", "--scope", "one", code=2)
    keeping.cancel()
    assert "one: a run of another is in progress since" in printed
    assert polling.store.api.count() == 0


async def test_a_run_that_was_cut_off_is_closed_first(
    polling: Polling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poll, "LOOK_S", 0.02)
    monkeypatch.setattr(poll, "Leases", lambda bucket, owner: Leases(bucket, owner, lease_s=0.1))
    work = polling.store.work("gone")
    ordered, _ = polling.store.ordered(scope("one"), work)
    assert await turn.begin(work, ordered, await work.leases.look("shop", "one"))
    await polling("shop", "--scope", "one")
    ends = await polling.store.ends()
    assert (ends[0].run_id, statuses(ends)) == (ordered.run_id, ["failed", "success"])


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["nobody"], "no source that is polled is called nobody: known are shop"),
        (["shop", "--scope", "three"], "shop has no scope three: known are one, two"),
    ],
)
async def test_what_is_not_there_is_named_with_what_is(
    polling: Polling, arguments: list[str], says: str
) -> None:
    assert says in await polling(*arguments, code=2)


async def test_a_missing_secret_is_named(polling: Polling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SECRET)
    said = f"not polled: set {SECRET} (or {SECRET}_FILE)"
    assert said in await polling("shop", code=2)
    assert json.loads(await polling("shop", "--json", code=2)) == {
        "ok": False,
        "source": "shop",
        "error": said,
        "code": "not_polled",
    }


async def test_a_secret_that_no_header_can_hold_is_not_asked_with(
    polling: Polling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET, "a b")
    assert f"{SECRET} holds a space" in await polling("shop", code=2)
