"""One measured figure, its spread over the runs, and the limit that it is held against."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """The spread of a figure over repeats."""

    min: float
    median: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Runs:
        """The spread of `values`, of which there is at least one."""
        return cls(min=min(values), median=statistics.median(values), max=max(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A figure: the median of its runs. `beside` names the limit that `ratio` compares it with."""

    name: str
    value: float
    unit: str
    runs: Runs
    beside: str = ""
    ratio: float | None = None
    missing: str = ""
    """Why it was not measured, where it was not."""

    def __str__(self) -> str:
        if self.missing:
            return f"{self.name}: not measured: {self.missing}"
        spread = f"{self.value:,.4g} {self.unit} [{self.runs.min:,.4g} – {self.runs.max:,.4g}]"
        return f"{self.name}: {spread}" + (
            f", {self.ratio:.2f} of {self.beside}" if self.ratio is not None else ""
        )


def measured(
    name: str, unit: str, values: Sequence[float], beside: str = "", limit: Sequence[float] = ()
) -> Result:
    """The result of `values`; where `limit` has the runs of what `beside` names, the ratio of the medians."""
    runs = Runs.of(values)
    ratio = runs.median / statistics.median(limit) if limit else None
    return Result(name=name, value=runs.median, unit=unit, runs=runs, beside=beside, ratio=ratio)


def unmeasured(name: str, reason: str) -> Result:
    """What could not be measured here."""
    return Result(name=name, value=math.nan, unit="", runs=Runs.of([math.nan]), missing=reason)
