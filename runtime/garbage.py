"""Python's search for cycles, held off: what a fold makes is freed without it, and a search walks over all of it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

MADE_COUNT = 50_000
"""Objects made and still there before the next search: Python's own 700 are those of ten deliveries."""


@contextmanager
def seldom_collected() -> Iterator[None]:
    """While the block runs, look for cycles seldom, and never among what was there before it."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(MADE_COUNT)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
