"""What docs/events.md tells subscribers is so, and its examples run with the least that a subscriber may do."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from contracts.builds import BuildFinished
from contracts.envelope import to_headers
from contracts.registry import EVENTS
from contracts.version import moment
from runtime import streams
from runtime.permissions import USERS
from tests.contracts.examples import FOLDER, event_of

if TYPE_CHECKING:
    from tests.conftest import Broker

ROOT = FOLDER.parent
PAGE = (ROOT / "docs" / "events.md").read_text(encoding="utf-8")
WAIT_S_MAX = 30.0
USER = "notifier"
"""It has a durable on EVENTS and may do what the page asks for, no more."""


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
    named = {name.replace("<name>", streams.NOTIFIER) for name in re.findall(r"`(\$JS\.[^`]+)`", PAGE)}
    assert set(USERS[USER].publish) == named


async def publish(broker: Broker, run: int, copy: str = "") -> None:
    """Publish the end of a build; a copy is one that the broker does not know for it."""
    example = event_of(FOLDER / "examples" / "build.finished.json")
    event = BuildFinished.model_validate(
        {**example.model_dump(), "ref": f"github:run/{run}/1", "moment": moment(example.occurred_at, 0, 2)}
    )
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
async def test_an_example_acts_once_on_each_event(broker: Broker, tmp_path: Path, code: str) -> None:
    for run, copy in ((1, ""), (1, "-copy"), (2, "")):
        await publish(broker, run, copy)
    surroundings = {"NATS_URL": broker.url(USER), "NATS_CONSUMER": streams.NOTIFIER}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code),
        env={**os.environ, **surroundings},
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(WAIT_S_MAX):
            assert "github:run/1/1 failed" == await told(process)
            assert "github:run/2/1 failed" == await told(process)
            await publish(broker, 2, "-copy")
            await publish(broker, 3)
            assert "github:run/3/1 failed" == await told(process)
    finally:
        process.kill()
        await process.wait()
