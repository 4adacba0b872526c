"""How every service listens, and how it ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from runtime import embedded
from runtime.process import EXIT_LOST, _given, serve_http
from runtime.settings import BadSettings
from tests.processes import forked
from tests.services.ingest.door import HOST, eventually, head, line_to

pytestmark = pytest.mark.anyio

DEAF = """
import asyncio
import sys
from runtime import process

process.END_S_MAX = 0.2

async def main(settings, log, stopping):
    log.info("waiting")
    await asyncio.Event().wait()

sys.exit(process.run("deaf", main))
"""


BRIEF = """
import signal
import sys
from runtime import process

async def main(settings, log, stopping):
    log.info("done")

code = process.run("brief", main)
signal.raise_signal(signal.SIGTERM)
sys.exit(code)
"""


LATE = """
import sys
from runtime import process, tracing

process.END_S_MAX = 0.5
tracing.stop = lambda left_s: sys.stderr.write(f"the spans have {left_s:.3f} s\\n")

async def main(settings, log, stopping):
    log.info("waiting")
    await stopping.wait()

sys.exit(process.run("late", main))
"""


async def test_the_last_spans_have_no_more_than_what_is_left_of_the_time_to_end(tmp_path: Path) -> None:
    with forked(["-c", LATE], {"PATH": os.environ["PATH"]}, tmp_path / "late") as process:

        async def waits() -> bool:
            return '"event": "waiting"' in process.said()

        await eventually(waits)
        process.signal(signal.SIGTERM)
        assert await process.ended(10.0) == 0
        (left_s,) = re.findall(r"the spans have (\S+) s", process.said())
        assert float(left_s) <= 0.5


async def test_who_is_told_to_stop_once_more_while_it_ends_has_ended_well(tmp_path: Path) -> None:
    with forked(["-c", BRIEF], {"PATH": os.environ["PATH"]}, tmp_path / "brief") as process:
        assert await process.ended(10.0) == 0


async def test_what_is_in_hand_too_long_is_cut_off_and_may_answer_yet() -> None:
    asked = asyncio.Event()

    async def patient(scope: Scope, receive: Receive, send: Send) -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await PlainTextResponse("cut off", 503)(scope, receive, send)

    port = embedded.free_port()
    async with AsyncExitStack() as served:
        await served.enter_async_context(serve_http(patient, HOST, port, stop_s_max=0.0))
        async with line_to(port) as line:
            await line.send(head("GET", "/", {}))
            await asked.wait()
            await served.aclose()
            assert (await line.reply()).status == 503


def test_a_socket_that_is_no_listening_one_of_tcp_is_none_to_inherit(tmp_path: Path) -> None:
    with (
        socket.socket() as silent,
        socket.socket(socket.AF_UNIX) as of_files,
        open(tmp_path / "file", "w") as file,
    ):
        of_files.bind(str(tmp_path / "socket"))
        of_files.listen()
        for each in (silent, of_files, file):
            number = each.fileno()
            with pytest.raises(BadSettings, match=f"ODOOOPS_LISTEN_FD is {number}: "):
                _given(number)
            os.fstat(number)  # it is still its owner's
    with pytest.raises(BadSettings, match="Bad file descriptor"):
        _given(number)


async def test_a_process_that_waits_for_who_says_nothing_ends_all_the_same(tmp_path: Path) -> None:
    with forked(["-c", DEAF], {"PATH": os.environ["PATH"]}, tmp_path / "deaf") as process:

        async def waits() -> bool:
            return '"event": "waiting"' in process.said()

        await eventually(waits)
        process.signal(signal.SIGTERM)
        assert await process.ended(10.0) == EXIT_LOST
        assert "did not end in time" in process.said()
