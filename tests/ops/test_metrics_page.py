"""docs/metrics.md lists the metrics that there are, and no others."""

from __future__ import annotations

import re
from pathlib import Path

from tests.ops.registered import Metric, metrics

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
_ROW = re.compile(r"\| `(odooops_\w+)` \| (\w+) \|([^|]*)\| ([^|]+) \|([^|]*)\|")


def documented() -> dict[str, Metric]:
    rows = [_ROW.fullmatch(line) for line in PAGE.read_text().splitlines() if line.startswith("| `odooops_")]
    found = [Metric(row[1], row[2], tuple(re.findall(r"`(\w+)`", row[3]))) for row in rows if row is not None]
    assert len(rows) == len(found) == len({metric.name for metric in found})
    return {metric.name: metric for metric in found}


def test_the_page_and_the_services_agree_on_every_name_type_and_label() -> None:
    assert documented() == metrics()


def test_a_name_that_the_page_mentions_anywhere_is_one_of_them() -> None:
    assert set(re.findall(r"odooops_\w+", PAGE.read_text())) <= set(metrics())
