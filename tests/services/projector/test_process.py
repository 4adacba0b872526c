"""The projector as a process: it hears SIGTERM at any time, and says in one sentence what is missing."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from runtime import embedded
from tests.services.projector.running import DEADLINE_S, ROOT

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def projector(**variables: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.projector"),
        cwd=ROOT,
        env={"PATH": os.environ.get("PATH", ""), **variables},
        stderr=PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_sigterm_is_heard_while_the_broker_is_away() -> None:
    away = f"nats://projector:x@127.0.0.1:{embedded.free_port()}"
    async with projector(NATS_URL_PROJECTOR=away) as process:
        assert process.stderr is not None
        assert b"starting" in await asyncio.wait_for(process.stderr.readline(), DEADLINE_S)
        process.send_signal(signal.SIGTERM)

        assert 0 == await asyncio.wait_for(process.wait(), DEADLINE_S)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({}, b"NATS_URL"),
        ({"NATS_URL_PROJECTOR": "nats://projector:hunter2@host:port"}, b"NATS_URL_PROJECTOR"),
    ],
)
async def test_a_wrong_setting_is_one_sentence_that_names_it(variables: dict[str, str], named: bytes) -> None:
    async with projector(**variables) as process:
        assert process.stderr is not None
        said = await asyncio.wait_for(process.stderr.read(), DEADLINE_S)

        assert 2 == await asyncio.wait_for(process.wait(), DEADLINE_S)
    assert named in said.splitlines()[-1]
    assert b"hunter2" not in said
    assert b"Traceback" not in said
