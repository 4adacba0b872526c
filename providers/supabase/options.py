"""What `options` in the SSOT file of a Supabase source may say."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from contracts.ssot import Strict

TableName = Annotated[str, Field(pattern=r"^.+\..+$")]
"""`schema.table`"""
ColumnName = Annotated[str, Field(min_length=1)]
PRIMARY_KEY = ("id",)


class SupabaseOptions(Strict):
    """The primary key of each table where it is another than `id`."""

    primary_keys: dict[TableName, Annotated[list[ColumnName], Field(min_length=1)]] = Field(default={})

    def primary_key(self, schema: str, table: str) -> tuple[str, ...]:
        """The columns that name a row of a table."""
        return tuple(self.primary_keys.get(f"{schema}.{table}", PRIMARY_KEY))
