"""Ports held for services, and services asked how they are."""

from __future__ import annotations

import asyncio
import socket

import pytest
from starlette.responses import PlainTextResponse

from runtime import ports, process
from runtime.settings import BadSettings

LOOPBACK = "127.0.0.1"


def test_a_port_that_is_held_is_busy_for_others() -> None:
    holder = ports.reserve(LOOPBACK, 0)
    assert holder is not None
    with holder:
        assert ports.reserve(LOOPBACK, holder.getsockname()[1]) is None


def test_a_service_listens_on_the_port_that_is_held_for_it() -> None:
    async def main() -> dict[str, str] | None:
        holder = ports.reserve(LOOPBACK, 0)
        assert holder is not None
        port = holder.getsockname()[1]

        async def wrong() -> dict[str, str]:
            return {"broker": "not connected"}

        with holder:
            async with process.serve_http(process.ops_app(wrong), LOOPBACK, port):
                return await ports.problems_at(LOOPBACK, port)

    assert asyncio.run(main()) == {"broker": "not connected"}


def test_silence_and_strangers_are_no_answer() -> None:
    async def main() -> None:
        with socket.socket() as closed:
            closed.bind((LOOPBACK, 0))
            assert await ports.problems_at(LOOPBACK, closed.getsockname()[1]) is None
            port = closed.getsockname()[1]
        async with process.serve_http(PlainTextResponse("hello"), LOOPBACK, port):
            assert await ports.problems_at(LOOPBACK, port) is None

    asyncio.run(main())


def test_a_host_that_is_none_is_named() -> None:
    with pytest.raises(BadSettings, match="ODOOOPS_HOST"):
        ports.reserve("no.such.host.invalid", 0)
