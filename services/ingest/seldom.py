"""A log for what strangers can cause as often as they like."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from runtime import streams

NOTHING: Mapping[str, object] = MappingProxyType({})


class Seldom:
    """Writes a line at once, and an equal one only after LOG_AGAIN_S, with the number of those between.

    The values of a line have to come from a bounded set: one entry is kept for each. What is in `sample` is written
    with a line and does not make it another one.
    """

    def __init__(self, log: Any) -> None:
        self._log = log
        self._said: dict[tuple[object, ...], tuple[float, int]] = {}
        """When each line was written last, and how often it was not since."""

    def info(self, event: str, sample: Mapping[str, object] = NOTHING, **about: object) -> None:
        self._say(self._log.info, event, about, sample)

    def warning(self, event: str, **about: object) -> None:
        self._say(self._log.warning, event, about)

    def error(self, event: str, sample: Mapping[str, object] = NOTHING, **about: object) -> None:
        self._say(self._log.error, event, about, sample)

    def _say(
        self, write: Any, event: str, about: dict[str, object], sample: Mapping[str, object] = NOTHING
    ) -> None:
        line = (event, *about.values())
        now = time.monotonic()
        last, withheld = self._said.get(line, (-streams.LOG_AGAIN_S, 0))
        if now - last < streams.LOG_AGAIN_S:
            self._said[line] = (last, withheld + 1)
            return
        self._said[line] = (now, 0)
        write(event, **about, **sample, **({"withheld": withheld} if withheld else {}))
