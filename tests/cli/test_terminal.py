"""Nothing that a sender wrote acts on the operator's terminal."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from cli import terminal


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b2J", r"\x9b2J"),
        ("over\rwritten", r"over\rwritten"),
        ("two\nlines", r"two\nlines"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("a\u2066b\u2069c", r"a\u2066b\u2069c"),
        ("\u200fright", r"\u200fright"),
        ("\ufeffmark", r"\ufeffmark"),
        ("tag\U000e0041", r"tag\U000e0041"),
        ("line\u2028end", r"line\u2028end"),
        ("half\ud800", r"half\ud800"),
        ("nul\x00", r"nul\x00"),
        ("größer 日本語", "größer 日本語"),
        ("👩\u200d🔧", "👩\u200d🔧"),
    ],
)
def test_what_acts_is_escaped_and_what_shows_is_kept(written: str, shown: str) -> None:
    assert terminal.clean(written) == shown


def test_line_ends_are_kept_where_lines_are_meant() -> None:
    assert terminal.clean("a\nb\rc", keep_lines=True) == "a\nb\\rc"


def test_a_table_interprets_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("[bold red]x[/bold red]", ":smile:", "\x1b[2J", None, True, ["a", "b"], {"k": "\x1b"})]
    terminal.console().print(terminal.table(["[b]c[/b]", "1", "2", "3", "4", "5", "6"], rows))
    printed = capsys.readouterr().out
    for expected in ("[bold red]x[/bold red]", ":smile:", r"\x1b[2J", " - ", "yes", "a, b", "[b]c[/b]"):
        assert expected in printed
    assert "\x1b" not in printed


def test_a_row_stays_on_its_line_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.console().print(terminal.table(["a", "b"], [("x" * 120, "y" * 120), ("z" * 500, "")]))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "x" * 120 in lines[2]
    assert lines[3].rstrip() == "z" * 119 + "…"


def test_json_is_ascii(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_json({"a": "\x1b\x9b\u202eä", "b": b"\x00\xff", "c": datetime(2026, 1, 1, tzinfo=UTC)})
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert json.loads(printed) == {"a": "\x1b\x9b\u202eä", "b": "00ff", "c": "2026-01-01T00:00:00+00:00"}


def test_sentences_to_people_are_cleaned_too(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say("a name: \x1b[31m")
    assert capsys.readouterr().err == "odooops: a name: \\x1b[31m\n"


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 * 2**30, "5.0 GiB"), (2**50, "1024.0 TiB")],
)
def test_sizes_are_short(count: int, shown: str) -> None:
    assert terminal.size(count) == shown
