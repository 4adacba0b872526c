"""Addresses of databases, and which errors are outages."""

from __future__ import annotations

import pytest

from runtime.postgres import make_engine


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_an_address_as_providers_print_it_is_taken(scheme: str) -> None:
    url = make_engine(f"{scheme}://user:p%40ss@host:5433/name?sslmode=require", "test").url

    assert ("postgresql+asyncpg", "p@ss", "require") == (url.drivername, url.password, url.query.get("ssl"))
    assert "sslmode" not in url.query
