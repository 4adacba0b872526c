"""`python -m migrations.logins`: all logins or none, and no password in what it says."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from migrations import logins
from runtime import embedded, settings
from runtime.settings import BadSettings
from tests.servers import _embedded_postgres

PASSWORD = "p@ss'w%rd"


@pytest.fixture(autouse=True)
def _addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    for user in embedded.DATABASE_USERS:
        url = f"postgresql://{embedded.login_of(user)}:p%40ss'w%25rd@postgres:5432/odooops"
        monkeypatch.setenv(f"DATABASE_URL_{user.upper()}", url)


def test_a_password_is_read_from_the_address_as_clients_read_it() -> None:
    assert dict.fromkeys(embedded.DATABASE_USERS, PASSWORD) == logins.passwords(settings.load())


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://odooops_projector:secret@h/d",
        "postgresql://odooops_login_reader@h/d",
        "postgresql://h/d",
    ],
)
def test_an_address_with_another_login_or_no_password_is_refused(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL_READER", url)
    with pytest.raises(BadSettings, match="DATABASE_URL_READER must hold the login odooops_login_reader"):
        logins.passwords(settings.load())


def test_without_the_roles_no_login_is_made_and_no_password_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with _embedded_postgres() as (port, made):
        admin = embedded.database_url(port, "postgres", made, "postgres")
        monkeypatch.setenv("DATABASE_URL", admin)

        assert 1 == logins.main()

        assert "logins: UndefinedObjectError (42704)\n" == capsys.readouterr().err
        assert [] == asyncio.run(login_names(admin))


async def login_names(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("SELECT rolname FROM pg_roles WHERE rolname LIKE 'odooops%'")
    finally:
        await connection.close()
    return [row["rolname"] for row in rows]
