"""The page of measurements says what was measured, what it is beside, and what could not be measured."""

from __future__ import annotations

import ast
import sys
from dataclasses import replace

import pytest

from bench import meaning
from bench.__main__ import PAGES, page, table
from bench.peers import install, suite
from bench.result import measured, unmeasured


def test_a_figure_stands_with_its_range_and_its_ratio() -> None:
    result = measured("ingest", "/s", [1_000, 3_000, 2_000], "bare js.publish", [4_000])

    assert table([result]).endswith("| ingest | 2,000 /s | 1,000 – 3,000 | 0.50 of bare js.publish |")


def test_what_could_not_be_measured_is_named_with_its_reason() -> None:
    result = unmeasured("webhook", "there is no apt-get")

    assert table([result]).endswith("| webhook | not measured: there is no apt-get |  |  |")
    assert str(result) == "webhook: not measured: there is no apt-get"


def test_the_page_has_a_section_for_each_of_its_suites_and_says_how_each_peer_was_used() -> None:
    given = replace(PAGES[0], suites=("starts", "peers"))

    text = page(given, {"starts": [measured("later", "s", [2.5])], "peers": []})

    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# Measurements",
        "## `python -m bench starts`",
        "## `python -m bench peers`",
    ]
    assert "| later | 2.5 s |" in text
    assert all(f"**{name}**: " in text for name in suite.FILES)


def test_normalising_has_one_line_for_each_provider() -> None:
    found = [
        measured(f"github: {meaning.MEAN}", "µs", [40], meaning.LIMIT, [20]),
        measured(f"github: {meaning.DEAREST}", "x", [13]),
        measured(f"slack: {meaning.MEAN}", "µs", [1], meaning.LIMIT, [2]),
        measured(f"slack: {meaning.DEAREST}", "x", [2]),
        measured(f"slack: {meaning.LARGE}", "x", [1.5]),
    ]

    assert meaning.table(found).splitlines()[2:] == [
        "| github | 40 | 40 – 40 | 2.00 | 13.00 |  |",
        "| slack | 1 | 1 – 1 | 0.50 | 2.00 | 1.50 |",
    ]


def test_what_an_installer_said_last_is_the_reason() -> None:
    with pytest.raises(install.Missing, match=r"^python.*: there is no such package$"):
        install._run([sys.executable, "-c", "import sys; sys.exit('sorry\\nthere is no such package')"])


def test_the_lock_has_every_peer_that_a_file_imports() -> None:
    lock = install.LOCK.read_text(encoding="utf-8")
    for file in suite.FILES.values():
        tree = ast.parse((install.HERE / file).read_text(encoding="utf-8"))
        modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
        for name in {"eventsourcing", "procrastinate"} & {module.split(".")[0] for module in modules}:
            assert f"\n{name}==" in f"\n{lock}"
