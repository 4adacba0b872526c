"""Drift: what a poll found to be other than a table said, and what is not there any more.

The projector finds both when it writes, and says so in deliveries of its own: whatever is folded anew later reads them
from the log and finds none a second time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import AwareDatetime, Field, JsonValue

from contracts.envelope import Level
from contracts.own import OwnEvent, Slug

DriftKind = Literal["missing", "different", "gone"]
"""`missing`: the table had no row. `different`: it had another one. `gone`: the thing is not there any more."""

VALUE_CHARS_MAX = 300
"""Of one value as JSON; a longer one is shown by its beginning. The whole one is in the observation."""
COLUMNS_MAX = 60


def shown(values: Mapping[str, Any]) -> dict[str, Any]:
    """Decoded JSON values by column, each at most VALUE_CHARS_MAX long."""
    return {column: _shown(value) for column, value in list(values.items())[:COLUMNS_MAX]}


def _shown(value: Any) -> Any:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return value if len(text) <= VALUE_CHARS_MAX else f"{text[:VALUE_CHARS_MAX]}…"


class DriftFound(OwnEvent):
    """A table was not as the world is, though the source tells of changes by itself. It is healed already.

    `source` is whose API was read, and `ref` the thing that it is about.
    """

    type: ClassVar[str] = "drift.found"
    service: ClassVar[str] = "poll"

    ref: str = Field(min_length=1)
    """The thing."""
    model: Slug
    """Which table of ops: `work_items`."""
    kind: DriftKind
    columns: list[str] = []
    """What differed; empty where the row was missing or the thing is gone."""
    was: dict[str, JsonValue] = {}
    """What the table said, by column."""
    found: dict[str, JsonValue] = {}
    """What it says now, by column."""
    delivery: str
    """The observation, or the listing, by which it was found: `source:identity`."""
    missed: list[str] = []
    """Ids of the events that became known by it."""
    changed_at: AwareDatetime | None = None
    """The provider's time of the change; null where it states none."""

    def named(self) -> str:
        return self.ref

    def told(self) -> str:
        return f"{self.model}:{self.delivery}"

    @property
    def level(self) -> Level:
        return "warn"

    @property
    def summary(self) -> str:
        if self.kind == "missing":
            return f"{self.ref} was missing in {self.model}"
        if self.kind == "gone":
            return f"{self.ref} is gone, {self.model} did not know"
        return f"{self.ref} differed in {self.model}: {', '.join(self.columns)}"


class ResourceGone(OwnEvent):
    """A thing of a source that only polls tell of is not there any more. Should it come back, it is observed."""

    type: ClassVar[str] = "resource.gone"
    service: ClassVar[str] = "runtime"

    ref: str = Field(min_length=1)
    """The thing."""
    model: Slug
    """Which table of ops it is in: `do_droplets`."""
    scope: str
    """The listing that does not show it any more."""
    delivery: str
    """That listing's last part: `source:identity`."""
    last_seen_at: AwareDatetime | None = None
    """When it was last seen."""

    def named(self) -> str:
        return self.ref

    def told(self) -> str:
        return self.delivery

    @property
    def level(self) -> Level:
        return "warn"

    @property
    def summary(self) -> str:
        return f"{self.ref} is gone"
