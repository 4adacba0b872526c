"""What docs/events.md tells subscribers is so, and its examples run with the least that a subscriber may do."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cli.main import main
from contracts.envelope import Event, to_headers
from contracts.registry import EVENTS
from contracts.version import moment
from runtime.permissions import subscriber
from tests.contracts.examples import FOLDER, event_of
from tests.servers import SUBSCRIBER

if TYPE_CHECKING:
    from tests.conftest import Broker

ROOT = FOLDER.parent
PAGE = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
WAIT_S_MAX = 30.0
LINES_MAX = 29


def blocks(language: str) -> list[str]:
    """The code blocks of the page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_table_names_each_type_and_no_other() -> None:
    table = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    assert sorted(EVENTS) == sorted(re.findall(r"`([a-z_.]+)`", " ".join(table)))


def test_the_headers_shown_are_those_of_the_example() -> None:
    (block,) = blocks("text")
    shown = dict(line.split(": ", 1) for line in block.splitlines())
    event = event_of(FOLDER / "examples" / "code.pushed.json")
    assert shown == to_headers(event, "github:72d3162e-cc78-11e3-81ab-4c9367dc0958")


def test_the_files_named_are_there() -> None:
    named = set(re.findall(r"`((?:contracts|tests|services)/[\w./]+\.\w+)`", PAGE))
    assert {name for name in named if (ROOT / name).is_file()} == named != set()


def test_the_permissions_named_are_those_that_the_examples_run_with() -> None:
    named = {name.replace("<name>", SUBSCRIBER) for name in re.findall(r"`(\$JS\.[^`]+)`", PAGE)}
    assert set(subscriber(SUBSCRIBER).publish) == named


def test_the_command_named_is_for_the_subscriber_that_the_examples_run_as() -> None:
    assert f"odooops subscribe {SUBSCRIBER} 'events.deployment.>'" in PAGE


@pytest.mark.parametrize("code", blocks("python"), ids=["nats-py", "FastStream"])
def test_an_example_is_short(code: str) -> None:
    assert len(code.splitlines()) <= LINES_MAX


async def publish(
    broker: Broker, number: int, copy: str = "", name: str = "deployment.status_changed"
) -> None:
    """Publish an event; a copy is one that the broker does not know for it."""
    example = event_of(FOLDER / "examples" / f"{name}.json")
    changed = {"ref": f"github:deployment/{number}", "moment": moment(example.occurred_at, 0, 2)}
    event: Event = type(example).model_validate({**example.model_dump(), **changed})
    headers = to_headers(event, "github:a-delivery")
    headers["Nats-Msg-Id"] += copy
    await broker.js.publish(event.subject, event.model_dump_json().encode(), headers=headers)


async def told(process: asyncio.subprocess.Process) -> str:
    """The next line that an example prints, past FastStream's own log."""
    assert process.stdout is not None
    while line := (await process.stdout.readline()).decode():
        if line.startswith("github:"):
            return line.rstrip("\n")
    return "nothing: it has ended"


@pytest.mark.anyio
@pytest.mark.parametrize("code", blocks("python"), ids=["nats-py", "FastStream"])
async def test_an_example_acts_once_on_each_event(
    broker: Broker, tmp_path: Path, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NATS_URL_OPERATOR", broker.url("operator"))
    monkeypatch.setenv("NATS_URL_READER", broker.url("reader"))
    monkeypatch.chdir(tmp_path)
    assert 0 == await asyncio.to_thread(main, ["subscribe", SUBSCRIBER, "events.deployment.>"])
    await publish(broker, 9, name="build.finished")
    for number, copy in ((1, ""), (1, "-copy"), (2, "")):
        await publish(broker, number, copy)
    surroundings = {"NATS_URL": broker.url(SUBSCRIBER), "NATS_CONSUMER": SUBSCRIBER}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code),
        env={**os.environ, **surroundings},
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(WAIT_S_MAX):
            assert "github:deployment/1 deployment.status_changed" == await told(process)
            assert "github:deployment/2 deployment.status_changed" == await told(process)
            await publish(broker, 2, "-copy")
            await publish(broker, 3, name="deployment.created")
            assert "github:deployment/3 deployment.created" == await told(process)
    finally:
        process.kill()
        await process.wait()
