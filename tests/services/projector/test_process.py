"""The projector as a process: it hears SIGTERM at any time, and says in one sentence what is missing."""

from __future__ import annotations

import os
import signal
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from runtime import embedded
from tests.processes import Forked, forked
from tests.services.projector.running import DEADLINE_S, until

pytestmark = pytest.mark.anyio


def projector(folder: Path, **variables: str) -> AbstractContextManager[Forked]:
    environment = {"PATH": os.environ.get("PATH", ""), **variables}
    return forked(["-m", "services.projector"], environment, folder / "projector")


async def test_sigterm_is_heard_while_the_broker_is_away(tmp_path: Path) -> None:
    away = f"nats://projector:x@127.0.0.1:{embedded.free_port()}"
    with projector(tmp_path, NATS_URL_PROJECTOR=away) as process:

        async def starting() -> bool:
            return "starting" in process.said()

        await until(starting, "it is starting")
        process.signal(signal.SIGTERM)

        assert 0 == await process.ended(DEADLINE_S)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({}, "NATS_URL"),
        ({"NATS_URL_PROJECTOR": "nats://projector:hunter2@host:port"}, "NATS_URL_PROJECTOR"),
    ],
)
async def test_a_wrong_setting_is_one_sentence_that_names_it(
    tmp_path: Path, variables: dict[str, str], named: str
) -> None:
    with projector(tmp_path, **variables) as process:
        assert 2 == await process.ended(DEADLINE_S)
    assert named in process.said().splitlines()[-1]
    assert "hunter2" not in process.said()
    assert "Traceback" not in process.said()
