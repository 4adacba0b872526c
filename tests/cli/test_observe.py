"""`odooops observe`, with a real broker: answers of an API go in, each thing a delivery."""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cli import observe
from cli.main import main
from contracts.delivery import Delivery
from contracts.polls import LISTED_REFS_MAX, ListingCompleted
from contracts.registry import decode
from runtime import bus, streams
from tests.conftest import Broker
from tests.providers.digitalocean.answers import FIXTURES, PASSWORD, USER, answer

pytestmark = pytest.mark.anyio

DROPLETS = str(FIXTURES / "all_droplets.all_droplets.json")
NOBODY = "nats://operator:the-password@127.0.0.1:1"


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("ODOOOPS_DATA_DIR", "NATS_URL", "NATS_URL_OPERATOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


class Observing:
    """The command beside the test's event loop, and the log that it fills."""

    def __init__(self, broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:
        self.broker, self.capsys = broker, capsys

    async def __call__(self, *arguments: str, code: int = 0) -> str:
        """What the command printed, on either stream."""
        given = await asyncio.to_thread(main, ["observe", *arguments])
        told = self.capsys.readouterr()
        assert given == code, told.err
        return told.out + told.err

    async def log(self) -> list[Delivery]:
        """Everything in DELIVERIES."""
        last = (await self.broker.js.stream_info(streams.DELIVERIES)).state.last_seq
        return [await bus.read_delivery(self.broker.js, seq) for seq in range(1, last + 1)]


@pytest.fixture
def observing(
    broker: Broker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Observing:
    monkeypatch.setenv("NATS_URL_OPERATOR", broker.url("operator"))
    return Observing(broker, capsys)


def page(tmp_path: Path, name: str, ids: Sequence[int], total: int | None) -> str:
    """A file with a page of droplets."""
    droplets = [{"id": n, "name": f"web-{n}", "status": "active"} for n in ids]
    path = tmp_path / name
    path.write_text(json.dumps({"droplets": droplets, "meta": {"total": total}}))
    return str(path)


async def test_each_thing_is_a_delivery_of_its_own(observing: Observing) -> None:
    said = await observing("digitalocean", "droplets", DROPLETS)
    log = await observing.log()

    assert "digitalocean droplets: 3 seen, 3 stored, 0 duplicates\n" == said
    assert [("digitalocean", "observed.droplet", "cli")] * 3 == [(d.source, d.kind, d.via) for d in log]
    assert [3164444, 3164459, 3164412] == [json.loads(d.body)["item"]["id"] for d in log]
    assert 1 == len({d.identity.partition(":")[0] for d in log})
    assert {None} == {d.verified_by for d in log}


async def test_a_second_look_is_another_run_and_a_thing_shown_twice_is_one(
    observing: Observing, tmp_path: Path
) -> None:
    twice = page(tmp_path, "twice.json", [1, 1], None)
    assert "2 seen, 1 stored, 1 duplicates" in await observing("digitalocean", "droplets", twice)
    assert "2 seen, 1 stored, 1 duplicates" in await observing("digitalocean", "droplets", twice)
    assert 2 == len({d.identity for d in await observing.log()})


async def test_what_two_pages_show_is_as_the_later_one_says(observing: Observing, tmp_path: Path) -> None:
    """Between two pages it was changed, and moved: as two bodies of one identity they would be a conflict."""
    first, second = (page(tmp_path, f"{n}.json", [1], None) for n in range(2))
    Path(second).write_text(Path(second).read_text().replace("active", "off"))

    await observing("digitalocean", "droplets", first, second)
    assert ["off"] == [json.loads(d.body)["item"]["status"] for d in await observing.log()]


async def test_a_whole_listing_is_said_last(observing: Observing) -> None:
    said = await observing("digitalocean", "droplets", DROPLETS, "--complete")
    *things, last = await observing.log()
    event = decode(last.kind, last.body)

    assert said.endswith("the listing droplets is complete with 3: what it does not show is gone\n")
    assert ("odooops", "listing.completed", "cli") == (last.source, last.kind, last.via)
    assert isinstance(event, ListingCompleted)
    assert ("digitalocean", "droplets", "droplet", 1, 1) == (
        event.source,
        event.scope,
        event.kind,
        event.part,
        event.parts,
    )
    ids = [json.loads(d.body)["item"]["id"] for d in things]
    assert sorted(f"digitalocean:droplet/{each}" for each in ids) == event.refs
    assert {event.started_at} == {d.received_at for d in things}


async def test_without_that_word_nothing_is_said_about_what_is_not_shown(observing: Observing) -> None:
    await observing("digitalocean", "droplets", DROPLETS)
    assert {"digitalocean"} == {d.source for d in await observing.log()}


async def test_a_long_listing_is_said_in_parts_and_an_empty_one_too(
    observing: Observing, tmp_path: Path
) -> None:
    many = page(tmp_path, "many.json", range(LISTED_REFS_MAX + 1), LISTED_REFS_MAX + 1)
    await observing("digitalocean", "droplets", many, "--complete", "--scope", "many")
    await observing("digitalocean", "droplets", page(tmp_path, "none.json", [], 0), "--complete")
    events: list[Any] = [decode(d.kind, d.body) for d in await observing.log() if d.source == "odooops"]

    assert [("many", 1, 2), ("many", 2, 2), ("droplets", 1, 1)] == [
        (e.scope, e.part, e.parts) for e in events
    ]
    assert [LISTED_REFS_MAX, 1, 0] == [len(e.refs) for e in events]


LAST_WEEK = datetime(2026, 11, 15, 12, tzinfo=UTC)


def saved(tmp_path: Path, name: str, ids: Sequence[int], at: datetime) -> str:
    """A file with a page of droplets that was last changed at a time."""
    file = page(tmp_path, name, ids, None)
    os.utime(file, (at.timestamp(), at.timestamp()))
    return file


async def times(observing: Observing) -> tuple[list[datetime], list[datetime]]:
    """When things were fetched, and when listings began."""
    log = await observing.log()
    events: list[Any] = [decode(d.kind, d.body) for d in log if d.source == "odooops"]
    return [d.received_at for d in log if d.source != "odooops"], [event.started_at for event in events]


async def test_an_answer_that_was_saved_is_as_old_as_its_file(observing: Observing, tmp_path: Path) -> None:
    """Or else it would outrank what has been seen since, and remove what was made since."""
    later = LAST_WEEK + timedelta(minutes=1)
    pages = [saved(tmp_path, "2.json", [2, 1], later), saved(tmp_path, "1.json", [1], LAST_WEEK)]
    await observing("digitalocean", "droplets", *pages, "--complete")

    assert ([later, later], [LAST_WEEK]) == await times(observing)


async def test_an_answer_that_was_copied_is_as_old_as_said(observing: Observing, tmp_path: Path) -> None:
    file = page(tmp_path, "1.json", [1], 1)
    await observing("digitalocean", "droplets", file, "--complete", "--fetched-at", LAST_WEEK.isoformat())

    assert ([LAST_WEEK], [LAST_WEEK]) == await times(observing)


async def test_a_file_from_tomorrow_was_fetched_now_at_the_latest(
    observing: Observing, tmp_path: Path
) -> None:
    before = datetime.now(UTC)
    await observing("digitalocean", "droplets", saved(tmp_path, "1.json", [1], before + timedelta(days=1)))

    [[fetched_at], _] = await times(observing)
    assert before <= fetched_at <= datetime.now(UTC)


async def test_what_is_piped_in_is_fetched_meanwhile(
    observing: Observing, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = Path(DROPLETS).read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw)))
    before = datetime.now(UTC)
    await observing("digitalocean", "droplets", "--complete")

    things, [began] = await times(observing)
    assert before <= began <= min(things) <= max(things) <= datetime.now(UTC)


async def test_pages_of_one_listing_complete_it_together(observing: Observing, tmp_path: Path) -> None:
    pages = [page(tmp_path, "1.json", [1, 2], 3), page(tmp_path, "2.json", [3], 3)]
    assert "3 seen" in await observing("digitalocean", "droplets", *pages, "--complete")


@pytest.mark.parametrize(
    ("pages", "says"),
    [
        ([([1, 2], 3)], "it shows 2, and says that there are 3"),
        # A droplet of the first page was removed while the second was read: another one was skipped.
        ([([1, 2], 4), ([4], 3)], "it shows 3, and says that there are 3 and 4"),
        ([([1, 2], 3), ([2], 3)], "it shows 2, and says that there are 3"),
    ],
)
async def test_a_part_of_a_listing_is_not_taken_for_the_whole(
    observing: Observing, tmp_path: Path, pages: list[tuple[list[int], int]], says: str
) -> None:
    files = [page(tmp_path, f"{n}.json", ids, total) for n, (ids, total) in enumerate(pages)]

    assert says in await observing("digitalocean", "droplets", *files, "--complete", code=1)
    assert [] == await observing.log()


async def test_an_answer_about_one_thing_is_not_taken_for_a_listing(observing: Observing) -> None:
    file = str(FIXTURES / "existing_droplet.single_droplet.json")

    assert "no_listing" in await observing("digitalocean", "droplets", file, "--complete", code=1)
    assert "1 seen, 1 stored" in await observing("digitalocean", "droplets", file)


async def test_a_dry_run_prints_what_would_be_stored_and_asks_no_broker(
    capsys: pytest.CaptureFixture[str],
) -> None:
    cluster = str(FIXTURES / "database_cluster.json")
    assert 0 == await asyncio.to_thread(main, ["observe", "digitalocean", "databases", cluster, "--dry-run"])
    told = capsys.readouterr()

    assert told.out.startswith("digitalocean:database/9cc10173-e9ea-4176-9dbc-a4cee4c4ff30 {")
    assert told.err == "odooops: 1 seen, and for --dry-run nothing stored\n"
    assert PASSWORD in answer("database_cluster").decode()
    assert PASSWORD not in told.out + told.err
    assert USER not in told.out + told.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nobody", "droplets", DROPLETS], "no source whose API is read is called nobody: known are "),
        (["odooops", "droplets", DROPLETS], "no source whose API is read is called odooops: known are "),
        (["digitalocean", "volumes", DROPLETS], "known kinds are droplets, gpu_droplets, "),
        (["digitalocean", "databases", DROPLETS], "neither a list databases nor an object database"),
        (["digitalocean", "droplets", str(FIXTURES / "unauthorized.json")], "did not accept the token"),
        (["digitalocean", "droplets", str(FIXTURES / "README.md")], "the answer is not JSON"),
        (["digitalocean", "droplets", DROPLETS, "--scope", "a b"], "a scope has 1 to 200 printable"),
        (["digitalocean", "droplets", DROPLETS, "--scope", "webhooks"], "choose another --scope"),
        (["digitalocean", "droplets", DROPLETS, "--fetched-at", "soon"], "--fetched-at soon: give an age"),
        (["digitalocean", "droplets", DROPLETS, "--fetched-at", "2099-01-01"], "is later than now"),
        (["digitalocean", "droplets", DROPLETS, "--scope", "é"], "a scope has 1 to 200 printable"),
        (["digitalocean", "gpu_droplets", DROPLETS], "this shows things of droplets, not of gpu_droplets"),
    ],
)
async def test_what_cannot_be_observed_is_named_in_one_sentence(
    observing: Observing, arguments: list[str], says: str
) -> None:
    said = await observing(*arguments, code=1)

    assert (says in said, said.count("\n")) == (True, 1), said
    assert [] == await observing.log()


async def test_a_page_with_one_wrong_thing_is_stored_not_at_all(observing: Observing, tmp_path: Path) -> None:
    path = tmp_path / "page.json"
    path.write_text('{"droplets": [{"id": 1, "name": "a", "status": "off"}, {"name": "b"}]}')

    assert "droplets.1 has no id" in await observing("digitalocean", "droplets", str(path), code=1)
    assert [] == await observing.log()


async def test_a_page_that_is_too_large_is_refused_before_it_is_read_whole(
    observing: Observing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observe, "PAGE_BYTES_MAX", 100)
    assert "has more than 100 bytes" in await observing("digitalocean", "droplets", DROPLETS, code=1)


async def test_a_broker_that_is_away_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NATS_URL_OPERATOR", NOBODY)
    assert 1 == await asyncio.to_thread(main, ["observe", "digitalocean", "droplets", DROPLETS])
    said = capsys.readouterr().err

    assert said.startswith("odooops: the broker at 127.0.0.1:1 does not answer")
    assert "the-password" not in said
