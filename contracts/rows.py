"""Changes of rows in somebody's database. The names are told, the values stay in the delivery: they may be personal."""

from __future__ import annotations

from typing import ClassVar

from contracts.envelope import Event


class RowEvent(Event):
    """One change of one row. `ref` is the row: `supabase:<schema>.<table>/<primary key>`, parts percent-encoded.

    `occurred_at` and `moment` are the time of receipt: the sender gives none.
    """

    service: ClassVar[str] = "db"

    schema_name: str
    table: str
    primary_key: dict[str, str]
    """Its columns and their values as text: `{"id": "7"}`."""

    @property
    def summary(self) -> str:
        return f"{self.schema_name}.{self.table}: row {self.type.partition('.')[2]}"


class RowInserted(RowEvent):
    """A row was added."""

    type: ClassVar[str] = "row.inserted"


class RowUpdated(RowEvent):
    """A row was written anew."""

    type: ClassVar[str] = "row.updated"

    changed_columns: list[str] = []
    """The columns whose values differ, by name; none where the row was written as it had been."""


class RowDeleted(RowEvent):
    """A row was removed."""

    type: ClassVar[str] = "row.deleted"
