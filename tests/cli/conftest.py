"""What several commands find when they are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Broker
from tests.servers import Database


@pytest.fixture
def logins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broker: Broker, database: Database) -> None:
    """The reader's and the operator's addresses, in an empty folder."""
    monkeypatch.delenv("ODOOOPS_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    for user in ("reader", "operator"):
        monkeypatch.setenv(f"NATS_URL_{user.upper()}", broker.url(user))
        monkeypatch.setenv(f"DATABASE_URL_{user.upper()}", database.url(user))
