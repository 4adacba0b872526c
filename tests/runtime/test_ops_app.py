"""Health and figures are answered whatever a server that hangs does."""

from __future__ import annotations

import asyncio
from asyncio import Event

import httpx
import pytest
from starlette.applications import Starlette

from runtime import process

pytestmark = pytest.mark.anyio


def client(app: Starlette) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ops")


async def clings(to: Event) -> dict[str, str]:
    """Hangs, and ends late when it is cancelled, as the client of a database that hangs does."""
    try:
        await Event().wait()
    finally:
        await to.wait()
    return {}


async def test_who_hangs_and_does_not_let_go_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MEASURE_S_MAX", 0.01)
    let_go = Event()
    async with asyncio.timeout(10), client(process.ops_app(lambda: clings(let_go))) as ops:
        assert {"unknown"} == set((await ops.get("/readyz")).json()["problems"])
        assert 'odooops_problem{part="unknown"} 1.0' in (await ops.get("/metrics")).text
    let_go.set()


async def test_figures_that_hang_do_not_hide_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MEASURE_S_MAX", 0.01)

    async def wrong() -> dict[str, str]:
        return {"postgres": "does not answer"}

    async def measure() -> None:
        await Event().wait()

    async with client(process.ops_app(wrong, measure)) as ops:
        assert 'odooops_problem{part="postgres"} 1.0' in (await ops.get("/metrics")).text


async def test_figures_that_several_ask_for_at_once_are_measured_once() -> None:
    measured, asked = 0, Event()

    async def well() -> dict[str, str]:
        return {}

    async def measure() -> None:
        nonlocal measured
        measured += 1
        await asked.wait()

    async with client(process.ops_app(well, measure)) as ops, asyncio.TaskGroup() as group:
        answers = [group.create_task(ops.get("/metrics")) for _ in range(5)]
        while not measured:
            await asyncio.sleep(0)
        asked.set()
    assert [200] * 5 == [answer.result().status_code for answer in answers]
    assert 1 == measured


async def test_what_is_asked_within_a_time_ends_with_whoever_asks() -> None:
    begun, ended = Event(), Event()

    async def asking() -> None:
        try:
            begun.set()
            await Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(process.within(60, asking()))
    await begun.wait()
    task.cancel()
    async with asyncio.timeout(10):
        await ended.wait()
    with pytest.raises(asyncio.CancelledError):
        await task
