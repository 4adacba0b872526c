"""Values that are made by the thousand in a second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def record(described: type[T]) -> type[T]:
    """A dataclass with slots, its fields given by name.

    It never changes: type checkers see to that. At run time that would cost three times the making (measured).
    """
    return dataclass(slots=True, kw_only=True)(described)
