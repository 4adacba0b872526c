"""What reaches the operator's terminal. Whatever a sender wrote could otherwise move the cursor, hide lines,
set the window's title or type for the operator, so each character that acts instead of showing is escaped.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPED_COLUMNS = 2_000
"""Width where nobody watches: rows stay on one line, for grep."""
CELL_CHARS_MAX = 120

_ACTING = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories: controls, formats (writing direction among them), lone surrogates, separators."""
_JOINERS = "\u200c\u200d"
"""Formats that only join or part two letters; scripts and emoji need them."""

STYLES = {
    "ok": "green",
    "warning": "yellow",
    "unknown": "magenta",
    "bad": "bold red",
    "error": "bold red",
    "projected": "green",
    "success": "green",
    "done": "green",
    "failed": "red",
    "parked": "yellow",
    "conflict": "yellow",
}


def clean(text: str, keep_lines: bool = False) -> str:
    """`text` with everything escaped that would act on a terminal; line ends too, unless `keep_lines`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_clean_char(char, keep_lines) for char in text)


def _clean_char(char: str, keep_lines: bool) -> str:
    if unicodedata.category(char) not in _ACTING or char in _JOINERS or (keep_lines and char == "\n"):
        return char
    return char.encode("unicode_escape").decode("ascii")


def show(value: object) -> str:
    """A value of a table as people read it; an absent one is a dash."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return moment(value)
        case list() | tuple():
            return ", ".join(show(part) for part in value)
        case dict():
            return json.dumps(value, default=str)
        case _:
            return str(value)


def moment(at: datetime) -> str:
    """A time in UTC, to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def deliveries(count: int) -> str:
    """So many deliveries."""
    return f"{count:,} {'delivery' if count == 1 else 'deliveries'}"


def size(count: int) -> str:
    """Bytes in the largest unit that leaves a number above one."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def console() -> Console:
    """Standard output, with nothing interpreted: no markup, no emoji codes, no guessed highlights."""
    return Console(
        markup=False, emoji=False, highlight=False, width=None if sys.stdout.isatty() else PIPED_COLUMNS
    )


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    title: str | None = None,
    cell_chars_max: int = CELL_CHARS_MAX,
) -> Table:
    """A table of `rows`, every cell made harmless and cut to `cell_chars_max`; known states are coloured."""
    made = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, show_edge=False)
    for column in columns:
        made.add_column(Text(clean(column)), overflow="fold")
    for row in rows:
        made.add_row(*(_cell(value, cell_chars_max) for value in row))
    return made


def print_rows(
    columns: Sequence[str], rows: Sequence[Sequence[object]], cell_chars_max: int = CELL_CHARS_MAX
) -> bool:
    """Rows as a table, or as blocks of lines where one would not fit the terminal; whether a cell was cut."""
    out = console()
    made = table(columns, rows, cell_chars_max=cell_chars_max)
    if (
        not sys.stdout.isatty()
        or out.measure(made, options=out.options.update(width=PIPED_COLUMNS)).maximum <= out.width
    ):
        out.print(made)
        return any(len(clean(show(value))) > cell_chars_max for row in rows for value in row)
    names = [clean(column) for column in columns]
    widest = max(map(len, names), default=0)
    for n, row in enumerate(rows, 1):
        out.print(f"row {n}", style="bold")
        for name, value in zip(names, row, strict=True):
            out.print(f"  {name:<{widest}}  {clean(show(value))}", soft_wrap=True)
    return False


def _cell(value: object, chars_max: int) -> Text:
    text = clean(show(value))
    if len(text) > chars_max:
        text = text[: chars_max - 1] + "…"
    return Text(text, style=STYLES.get(text, ""), justify="right" if _is_number(value) else "left")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def print_json(value: object) -> None:
    """`value` as JSON in pure ASCII, so that no character in it can act on a terminal."""
    made = json.dumps(_numbers(value), indent=2, default=_plain, ensure_ascii=True, allow_nan=False)
    sys.stdout.write(made + "\n")


def _numbers(value: object) -> object:
    """`value` with NaN and the infinities, for which JSON has no number, as strings."""
    match value:
        case float() if not math.isfinite(value):
            return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(value)]
        case dict():
            return {key: _numbers(part) for key, part in value.items()}
        case list() | tuple():
            return [_numbers(part) for part in value]
        case _:
            return value


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (bytes, memoryview)):
        return bytes(value).hex()
    return str(value)


def say(sentence: str) -> None:
    """One line to people, on standard error."""
    sys.stderr.write(f"odooops: {clean(sentence)}\n")
    sys.stderr.flush()


def own_command() -> str:
    """How to call this command again: its name where the shell finds it, else its path."""
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return f"{os.path.relpath(sys.executable)} -m {called.parent.name}"
    found = shutil.which(called.name)
    if found is not None and Path(found).samefile(called):
        return called.name
    return os.path.relpath(called)
