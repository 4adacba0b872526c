"""runtime/process.py: what a service says of itself on its ops port."""

from __future__ import annotations

import asyncio
import tomllib
from pathlib import Path

import pytest

from runtime import process
from runtime.embedded import free_port
from runtime.ports import metrics_at
from runtime.version import VERSION

LOOPBACK = "127.0.0.1"


async def problems_of(app_of: process.Ready, measure: process.Measure) -> list[str]:
    port = free_port()
    async with process.serve_http(process.ops_app(app_of, measure), LOOPBACK, port):
        found = await metrics_at(LOOPBACK, port, "odooops_problem")
    assert found is not None
    return [labels["part"] for labels, value in found if value == 1]


def test_metrics_name_the_problems_of_now_and_forget_them_when_they_are_over() -> None:
    wrong = {"broker": "not connected"}

    async def ready() -> dict[str, str]:
        return wrong

    async def measure() -> None: ...

    assert ["broker"] == asyncio.run(problems_of(ready, measure))
    wrong = {}
    assert [] == asyncio.run(problems_of(ready, measure))


def test_metrics_do_not_wait_for_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MEASURE_S_MAX", 0.1)

    async def ready() -> dict[str, str]:
        return {}

    async def for_ever() -> None:
        await asyncio.Event().wait()

    assert ["unknown"] == asyncio.run(problems_of(ready, for_ever))


def test_the_version_is_that_of_the_package() -> None:
    described = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert VERSION == described["project"]["version"]
