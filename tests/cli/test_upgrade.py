"""What earlier versions wrote, restored into today's: served, rebuilt from the log, and gone on with.

One test is on a data folder, with servers of its own; the others are at given servers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from cli.main import main
from migrations.__main__ import head
from read_models.registry import READ_MODELS
from runtime import bundle, postgres, streams
from runtime.state import owned
from tests.conftest import Broker
from tests.samples import body, delivery
from tests.servers import Database, data_folder
from tests.services.projector.running import project_all, store_batch
from tests.tables import count

FOLDER = Path(__file__).parents[1] / "fixtures" / "upgrade"
BACKUPS = sorted(FOLDER.glob("*/backup.tar"))


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for kind in ("NATS_URL", "DATABASE_URL"):
        for user in ("", "_OPERATOR", "_READER"):
            monkeypatch.delenv(kind + user, raising=False)
    monkeypatch.setenv("ODOOOPS_DATA_DIR", str(tmp_path / "none"))


@pytest.fixture
def given(broker: Broker, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database.url("admin"))
    for user in ("operator", "reader"):
        monkeypatch.setenv(f"NATS_URL_{user.upper()}", broker.url(user))
        monkeypatch.setenv(f"DATABASE_URL_{user.upper()}", database.url(user))


async def odooops(*arguments: object) -> int:
    return await asyncio.to_thread(main, [str(each) for each in arguments])


def manifest(path: Path) -> Any:
    with bundle.reading(path) as found:
        return found.manifest


@pytest.mark.anyio
@pytest.mark.usefixtures("given")
@pytest.mark.parametrize("path", BACKUPS, ids=lambda path: path.parent.name)
async def test_data_of_an_earlier_version_is_served_rebuilt_and_gone_on_with(
    path: Path, broker: Broker, database: Database
) -> None:
    made = manifest(path)
    assert path.stat().st_size < 1_000_000
    assert 0 == await odooops("restore", path)
    engine = postgres.make_engine(database.url("projector"), "test")
    operator = postgres.make_engine(database.url("operator"), "test")
    async with operator.connect() as connection:
        assert head() == (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar()
        views = await connection.execute(
            text("SELECT table_schema, table_name FROM information_schema.views WHERE table_schema = 'ops'")
        )
        for schema, name in [tuple(row) for row in views]:
            await connection.execute(text(f'SELECT * FROM {schema}."{name}"'))
        for entry in made["tables"]:
            found = await connection.execute(text(f"SELECT count(*) FROM {entry['schema']}.{entry['name']}"))
            assert entry["rows"] == found.scalar(), entry["name"]
    # Everything is there that the fixture is to prove: something large, something parked, readers of events.
    assert (await broker.js.stream_info(streams.BODIES_STREAM)).state.messages
    assert 1 == await count(engine, "deliveries", "status = 'parked'")
    assert {streams.NOTIFIER, "deploys"} == {
        each.name for each in await broker.js.consumers_info(streams.EVENTS)
    }
    assert [] == await streams.inspect(broker.js)
    await project_all(broker, engine)

    # New deliveries are folded beside rows that older code made, and then all of them anew.
    before = await count(engine, "work_items")
    new = {**json.loads(body("issues.opened.15"))}
    new["issue"] = {**new["issue"], "number": 4_242, "id": 4_242}
    await store_batch(broker, [delivery("issues", json.dumps(new).encode(), 0, "after-the-upgrade")])
    await project_all(broker, engine)
    assert before + 1 == await count(engine, "work_items")

    # What today's code understands differently is named by verify, and mended from the log as it was written then.
    assert await odooops("verify") in (0, 1)
    assert 0 == await odooops("rebuild")
    assert 0 == await odooops("verify")
    log = next(e["state"] for e in made["streams"] if e["config"]["name"] == streams.DELIVERIES)
    # An operator's word, say of a delivery that can be understood now, may have come to it.
    assert log["messages"] <= await count(engine, "deliveries")
    for entry in made["tables"]:
        if (
            entry["rows"]
            and entry["schema"] == "ops"
            and entry["name"] in {each.name for each in READ_MODELS}
        ):
            assert await count(engine, entry["name"]), entry["name"]
    await engine.dispose()
    await operator.dispose()


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder for a data folder."""
    with data_folder() as made:
        yield made


def test_a_data_folder_is_restored_and_backed_up_while_nothing_runs_on_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, home: Path
) -> None:
    folder, again = home / "data", tmp_path / "again.tar"
    assert 0 == main(["restore", str(BACKUPS[-1]), "--data-dir", str(folder)])
    assert f"odooops up --data-dir {folder}" in capsys.readouterr().out
    assert 0 == main(["backup", str(again), "--data-dir", str(folder)])
    was, now = manifest(BACKUPS[-1]), manifest(again)
    assert head() == now["migration"]
    assert was["projected_upto"] == now["projected_upto"]
    states = [{e["config"]["name"]: e["state"]["last_seq"] for e in made["streams"]} for made in (was, now)]
    assert states[0].items() <= states[1].items()
    rows = {entry["name"]: entry["rows"] for entry in now["tables"]}
    assert {entry["name"]: entry["rows"] for entry in was["tables"]}.items() <= rows.items()
    # Nothing was left running, and a folder that somebody owns, or where nothing is, is not touched.
    with owned(folder):
        pass
    capsys.readouterr()
    with owned(folder):
        assert 1 == main(["restore", str(BACKUPS[-1]), "--data-dir", str(folder)])
    assert "another `odooops up` runs" in capsys.readouterr().err
    assert 1 == main(["backup", str(tmp_path / "c.tar"), "--data-dir", str(tmp_path / "none")])
    assert "no servers run in" in capsys.readouterr().err
