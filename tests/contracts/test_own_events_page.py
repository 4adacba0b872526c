"""What docs/own-events.md tells producers is so: its table, its program and its message, on a real broker."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from contracts import drift, ledger, webhooks
from contracts.delivery import body_sha256, from_message
from contracts.own import SENTENCE_CHARS_MAX, OwnEvent
from contracts.registry import EVENTS
from read_models.registry import READ_MODELS
from runtime import bus, streams
from services.projector.understand import Understood, understand
from tests.contracts.examples import FOLDER
from tests.samples import SOURCES

if TYPE_CHECKING:
    from tests.conftest import Broker

ROOT = FOLDER.parent
PAGE = (ROOT / "docs" / "own-events.md").read_text(encoding="utf-8")
LOGS = {"run_events", "platform_events"}
USER = "ingest"
"""The one user, but for the operator, that may publish deliveries."""
WAIT_S_MAX = 30.0

OWN = {
    name: event
    for name, event in EVENTS.items()
    if issubclass(event, OwnEvent)
    and event.__module__ not in {module.__name__ for module in (drift, ledger, webhooks)}
}
"""What producers may say: the words of the other modules are the operator's, the projector's and the poller's."""
TABLE = [
    [re.findall(r"`([a-z_.]+)`", cell) for cell in line.split("|")[1:3]]
    for line in PAGE.splitlines()
    if line.startswith("| `")
]


def block(language: str) -> str:
    """The one code block of the page in a language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def test_the_table_names_each_type_and_the_table_that_it_fills() -> None:
    shown = {(table, name) for (table,), names in TABLE for name in names}
    filled = {
        (model.name, event.type)
        for model in READ_MODELS
        for event in model.folds
        if event.type in OWN and model.name not in LOGS
    }
    assert filled == shown


@pytest.mark.parametrize(("name", "event"), OWN.items(), ids=OWN)
def test_the_table_names_what_a_type_asks_for_and_no_more(name: str, event: type[OwnEvent]) -> None:
    line = next(line for line in PAGE.splitlines() if line.startswith("| `") and f"`{name}`" in line)
    of_all, *of_some = line.split("|")[3].split(";")
    needed = set(re.findall(r"`([a-z0-9_]+)`", of_all))
    for part in of_some:
        verb, _, fields = part.strip().partition(":")
        if name.endswith(f".{verb}"):
            needed |= set(re.findall(r"`([a-z0-9_]+)`", fields))
    assert needed | {"occurred_at"} == {
        field for field, info in event.model_fields.items() if info.is_required()
    }


def test_the_words_that_are_kept_beside_ours_are_named() -> None:
    kept = {word for event in OWN.values() for word in event.words}
    assert kept == {word for word in kept if f"`{word}`" in PAGE or f"`{word}:" in PAGE}


def test_the_limits_are_the_ones_that_hold() -> None:
    assert f"after {SENTENCE_CHARS_MAX:,} characters" in PAGE
    assert f"at most {streams.EVENT_BYTES_MAX // 1024} KB" in PAGE
    assert f"`{streams.ARTIFACTS}`" in PAGE


def message() -> tuple[str, dict[str, str], bytes]:
    """Subject, headers and body of the message that the page shows."""
    subject, headers, body = block("text").strip().split("\n\n")
    return subject, dict(line.split(": ", 1) for line in headers.splitlines()), body.encode()


async def stored(broker: Broker) -> Understood:
    """What the projector would make of the newest delivery."""
    last = (await broker.js.stream_info(streams.DELIVERIES)).state.last_seq
    return understand(SOURCES, await bus.read_delivery(broker.js, last))


def row_of(result: Understood, table: str) -> Any:
    assert result.status == "projected", result.error
    return next(row for name, row in result.rows if name == table)


def test_the_message_shown_is_what_our_own_writer_would_write() -> None:
    subject, headers, body = message()
    assert body_sha256(body) == headers["Odooops-Body-Sha256"]
    given = from_message(subject, headers, body, 1)
    assert (given.message_id, "healthcheck.completed") == (headers["Nats-Msg-Id"], given.kind)


@pytest.mark.anyio
async def test_the_message_shown_is_stored_once_and_understood(broker: Broker) -> None:
    subject, headers, body = message()
    nc = await bus.connect(broker.url(USER), USER)
    copies = [
        (await nc.jetstream().publish(subject, body, headers=headers, stream=streams.DELIVERIES)).duplicate
        for _ in range(2)
    ]
    await nc.close()

    assert [None, True] == copies
    row = row_of(await stored(broker), "healthcheck_runs")
    assert ("odooops:healthcheck/prod/http/shop.example.org", "degraded") == (row.ref, row.status)


@pytest.mark.anyio
async def test_the_program_says_what_it_did(broker: Broker, tmp_path: Path) -> None:
    surroundings = {"NATS_URL": broker.url(USER), "NATS_USER": USER, "PYTHONPATH": str(ROOT)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", block("python")),
        env={**os.environ, **surroundings},
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(WAIT_S_MAX):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    assert "odooops:backup/prod-47 is stored as message 1\n" == said.decode()
    row = row_of(await stored(broker), "backups")
    assert ("prod-47", "prod", "success") == (row.backup_id, row.env, row.status)
