"""What understanding costs, provider by provider, beside only parsing the same bytes; and that it grows no faster."""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import uvloop
from pydantic_core import from_json, to_json

from bench.result import Result, measured
from providers.port import Ignored, Unintelligible
from providers.registry import PROVIDERS
from tests.providers.case import Case, Sample

REPEATS = 5
CALLS = 40
LARGE_BYTES = 256 * 1024
LIMIT = "from_json of the same bytes"
MEAN = "bytes to events, mean of all bodies"
DEAREST = "the dearest body"
LARGE = f"the dearest grown to {LARGE_BYTES // 1024} KB"


async def run() -> list[Result]:
    """Measure each provider's samples: bytes to events, and bytes to plain Python values."""
    results = []
    for name in PROVIDERS:
        case: Case = importlib.import_module(f"tests.providers.{name}.cases").CASE
        samples = [sample for sample in case.samples if _is_json(sample.body)]
        if not samples:
            continue
        meaning, parsing = [], []
        for _ in range(REPEATS):
            meaning.append(statistics.mean(_micros(_meaning(case, each)) for each in samples))
            parsing.append(statistics.mean(_micros(_parsing(each)) for each in samples))
        results.append(measured(f"{name}: {MEAN}", "µs", meaning, LIMIT, parsing))
        worst = max(_micros(_meaning(case, each)) / _micros(_parsing(each)) for each in samples)
        results.append(measured(f"{name}: {DEAREST}", "x", [worst]))
        # A small body costs what an event costs, whatever parsing it does: how the cost grows shows on a large one.
        large = [grown for each in samples if (grown := _grown(each)) is not None]
        if large:
            worst = max(_micros(_meaning(case, each)) / _micros(_parsing(each)) for each in large)
            results.append(measured(f"{name}: {LARGE}", "x", [worst]))
    return results


def table(results: list[Result]) -> str:
    """One line for each provider."""
    rows: dict[str, dict[str, Result]] = {}
    for result in results:
        provider, _, figure = result.name.partition(": ")
        rows.setdefault(provider, {})[figure] = result
    lines = [
        f"| provider | {MEAN}, µs | range | times {LIMIT} | {DEAREST} | {LARGE} |",
        "|---|---|---|---|---|---|",
    ]
    for provider, found in rows.items():
        mean, large = found[MEAN], found.get(LARGE)
        lines.append(
            f"| {provider} | {mean.value:,.4g} | {mean.runs.min:,.4g} – {mean.runs.max:,.4g} | {mean.ratio:.2f}"
            f" | {found[DEAREST].value:.2f} | {f'{large.value:.2f}' if large else ''} |"
        )
    return "\n".join(lines)


def _grown(sample: Sample) -> Sample | None:
    """A sample with so many copies of itself in a member that nobody reads that it is large; None for no object."""
    value = from_json(sample.body)
    if not isinstance(value, dict):
        return None
    copies = LARGE_BYTES // len(sample.body) + 1
    return replace(sample, body=to_json({**value, "padding": [value] * copies}))


def _meaning(case: Case, sample: Sample) -> Callable[[], object]:
    delivery, source = case.delivery(sample), case.source

    def once() -> object:
        try:
            return list(source.provider.normalize(delivery, source))
        except (Ignored, Unintelligible) as error:
            return error.reason

    return once


def _parsing(sample: Sample) -> Callable[[], object]:
    return lambda: from_json(sample.body)


def _is_json(body: bytes) -> bool:
    try:
        from_json(body)
    except ValueError:
        return False
    return True


def _micros(call: Callable[[], object]) -> float:
    """The least time of a call: what it costs when nothing disturbs it."""
    least = float("inf")
    for _ in range(CALLS):
        started = time.perf_counter()
        call()
        least = min(least, time.perf_counter() - started)
    return least * 1e6


if __name__ == "__main__":
    for result in uvloop.run(run()):
        print(result)
