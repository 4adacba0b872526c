"""Rows of a dump are unpacked a little at a time, whatever they were packed to."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from typing import Any, cast

import asyncpg
import pytest

from runtime import dump

pytestmark = pytest.mark.anyio

TABLE = dump.Table("ops", "builds", ("ref",))
ROWS = b"x" * 10 * dump.UNPACKED_BYTES


class Taking:
    """A connection that keeps what a COPY is given."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    async def copy_to_table(self, *_: object, source: AsyncIterator[bytes], **__: object) -> str:
        self.pieces += [piece async for piece in source]
        return "COPY 1"


async def given(pieces: list[bytes]) -> list[bytes]:
    taking: Any = Taking()
    await dump.copy_in(cast(asyncpg.Connection, taking), TABLE, pieces)
    return cast(Taking, taking).pieces


async def test_what_was_packed_small_is_not_in_memory_at_once() -> None:
    pieces = await given([gzip.compress(ROWS)])
    assert ROWS == b"".join(pieces)
    assert max(map(len, pieces)) <= dump.UNPACKED_BYTES


async def test_pieces_may_be_cut_anywhere() -> None:
    packed = gzip.compress(bytes(range(256)) * 100)
    assert bytes(range(256)) * 100 == b"".join(
        await given([packed[n : n + 7] for n in range(0, len(packed), 7)])
    )


async def test_rows_that_are_cut_off_are_no_rows() -> None:
    with pytest.raises(ValueError, match=r"the rows of ops\.builds are cut off"):
        await given([gzip.compress(ROWS)[:-9]])
