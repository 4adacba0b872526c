"""`odooops ssot apply` on a real broker and a real database: what differs is delivered, and nothing else."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from cli import catalogue
from cli.main import main
from contracts.catalogue import IntegrationObserved, integration_ref
from contracts.delivery import Delivery
from contracts.own import delivery_of
from contracts.version import moment
from runtime import bus, streams
from runtime.postgres import make_engine
from services.projector.write import Writer
from tests.cli.catalogues import ROOT, write
from tests.conftest import Broker
from tests.samples import SOURCES
from tests.servers import Database
from tests.services.projector.running import clean_fold, project_all, store
from tests.tables import SQL, snapshot

pytestmark = pytest.mark.anyio

SLACK: dict[str, Any] = {
    "name": "Slack",
    "category": "messaging",
    "provider": "direct",
    "installed": "active",
    "billing": "direct",
}
GROQ: dict[str, Any] = {"name": "Groq", "category": "ai_inference", "provider": "vercel_marketplace"}
VAULT: dict[str, Any] = {"name": "Vault", "category": "supabase", "maturity": "beta"}
BLOG: dict[str, Any] = {"title": "A blog", "tags": ["Starter"]}


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broker: Broker, database: Database) -> None:
    monkeypatch.delenv("ODOOOPS_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    for user in ("reader", "operator"):
        monkeypatch.setenv(f"NATS_URL_{user.upper()}", broker.url(user))
    monkeypatch.setenv("DATABASE_URL_READER", database.url("reader"))


@pytest.fixture
async def engine(database: Database) -> AsyncIterator[AsyncEngine]:
    made = make_engine(database.url("projector"), "test")
    yield made
    await made.dispose()


class Operator:
    """Somebody who edits the YAML and applies it, and the projector that follows."""

    def __init__(
        self, folder: Path, broker: Broker, engine: AsyncEngine, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.folder, self.broker, self.engine, self.capsys = folder, broker, engine, capsys

    async def applies(self, *options: str, **catalogues: dict[str, Any]) -> dict[str, Any]:
        """What an apply of these catalogues says, once the projector has followed."""
        write(self.folder, **catalogues)
        told = await self.runs(*options)
        await project_all(self.broker, self.engine)
        return told

    async def runs(self, *options: str) -> dict[str, Any]:
        arguments = ["ssot", "apply", "--ssot", str(self.folder), "--json", *options]
        assert 0 == await asyncio.to_thread(main, arguments), self.capsys.readouterr().err
        told: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        return told

    async def sees(self, columns: str, relation: str, ref: str) -> Any:
        async with self.engine.connect() as connection:
            found = await connection.execute(
                text(f"SELECT {columns} FROM ops.{relation} WHERE ref = :ref"), {"ref": ref}
            )
            return tuple(found.one())

    async def observes(self, status: str, at: datetime) -> None:
        """Somebody looks at the installation of Slack."""
        event = IntegrationObserved(
            source="odooops",
            ref=integration_ref("slack"),
            moment=moment(at, 0),
            occurred_at=at,
            key="slack",
            status=status,
            evidence={"http_status": 403},
        )
        await store(self.broker, [delivery_of(event, via="job", said_at=at)])
        await project_all(self.broker, self.engine)

    async def deliveries(self) -> list[Delivery]:
        last = (await self.broker.js.stream_info(streams.DELIVERIES)).state.last_seq
        return [await bus.read_delivery(self.broker.js, seq) for seq in range(1, last + 1)]


@pytest.fixture
def operator(
    tmp_path: Path, broker: Broker, engine: AsyncEngine, capsys: pytest.CaptureFixture[str]
) -> Operator:
    return Operator(tmp_path / "ssot", broker, engine, capsys)


def words(told: dict[str, Any]) -> set[tuple[str, str]]:
    return {(change["ref"].removeprefix("odooops:"), change["change"]) for change in told["changes"]}


async def test_entries_become_deliveries_that_end_with_a_listing_of_each_kind(operator: Operator) -> None:
    told = await operator.applies(
        integrations={"slack": SLACK, "groq": GROQ},
        capabilities={"vault": VAULT},
        starters={"examples": {"blog": BLOG}},
    )

    made = await operator.deliveries()
    assert words(told) == {
        ("integration/slack", "new"),
        ("integration/groq", "new"),
        ("capability/vault", "new"),
        ("starter/examples/blog", "new"),
    }
    assert {("odooops", "ssot")} == {(each.source, each.via) for each in made}
    assert [each.kind for each in made] == [
        "integration.declared",
        "integration.declared",
        "capability.declared",
        "starter.declared",
        *["listing.completed"] * 3,
    ]
    assert len({each.identity for each in made}) == 7 == told["deliveries"]
    slack = integration_ref("slack")
    assert await operator.sees("name, status, billing, gone", "integrations_view", slack) == (
        "Slack",
        "active",
        "direct",
        False,
    )
    groq = integration_ref("groq")
    assert await operator.sees("status, billing, evidence, gone", "integrations_view", groq) == (
        "inactive",
        "direct",
        {},
        False,
    )
    assert await operator.sees("maturity, gone", "capabilities_now", "odooops:capability/vault") == (
        "beta",
        False,
    )
    assert await operator.sees("title, gone", "starters_now", "odooops:starter/examples/blog") == (
        "A blog",
        False,
    )


async def test_a_second_apply_makes_no_row_differ(operator: Operator) -> None:
    catalogues: dict[str, Any] = {"integrations": {"slack": SLACK}, "capabilities": {}, "starters": {}}
    await operator.applies(**catalogues)
    before = await snapshot(operator.engine)

    told = await operator.applies(**catalogues)

    assert (told["changes"], told["deliveries"]) == ([], 0)
    assert before == await snapshot(operator.engine)


async def test_the_repositorys_own_catalogues_apply_once(operator: Operator) -> None:
    operator.folder = ROOT / "ssot"
    first = await operator.runs()
    await project_all(operator.broker, operator.engine)
    before = await snapshot(operator.engine)

    again = await operator.runs()

    assert len(first["changes"]) == 12 + 13 + 3
    assert again["deliveries"] == 0
    assert {"projected"} == {row["status"] for row in before["deliveries"]}


async def test_a_value_is_changed_and_gone_back_to(operator: Operator) -> None:
    slack = integration_ref("slack")
    dear = {**SLACK, "cost_band": "high", "installed": "inactive"}
    seen = []
    for entry in (SLACK, dear, SLACK):
        told = await operator.applies(integrations={"slack": entry})
        seen.append(await operator.sees("cost_band, status", "integrations_view", slack))

    assert seen == [("included", "active"), ("high", "inactive"), ("included", "active")]
    (change,) = told["changes"]
    assert change["change"] == "changed"
    assert change["columns"] == {
        "cost_band": {"was": "high", "will": "included"},
        "declared_status": {"was": "inactive", "will": "active"},
    }
    # One declaration each, and one listing at the beginning: the set of entries never changed.
    assert ["integration.declared"] * 3 == sorted(each.kind for each in await operator.deliveries())[:3]
    assert 4 == len(await operator.deliveries())


async def test_an_entry_that_was_removed_is_gone_until_it_is_back(operator: Operator) -> None:
    groq = integration_ref("groq")
    both = {"slack": SLACK, "groq": GROQ}
    await operator.applies(integrations=both)

    removed = await operator.applies(integrations={"slack": SLACK})
    assert words(removed) == {("integration/groq", "removed")}
    assert await operator.sees("name, gone", "integrations_view", groq) == ("Groq", True)
    assert await operator.sees("gone", "integrations_view", integration_ref("slack")) == (False,)
    assert (await operator.applies(integrations={"slack": SLACK}))["deliveries"] == 0

    back = await operator.applies(integrations=both)
    assert words(back) == {("integration/groq", "back")}
    assert await operator.sees("name, gone", "integrations_view", groq) == ("Groq", False)


async def test_the_last_entry_of_a_kind_can_be_removed(operator: Operator) -> None:
    await operator.applies(capabilities={"vault": VAULT})

    await operator.applies(capabilities={})

    assert await operator.sees("gone", "capabilities_now", "odooops:capability/vault") == (True,)


async def test_a_kind_without_a_file_is_left_alone(operator: Operator) -> None:
    await operator.applies(capabilities={"vault": VAULT})

    told = await operator.applies(integrations={"slack": SLACK})

    assert words(told) == {("integration/slack", "new")}
    assert await operator.sees("gone", "capabilities_now", "odooops:capability/vault") == (False,)


async def test_an_observed_status_is_never_overwritten(operator: Operator) -> None:
    slack = integration_ref("slack")
    await operator.applies(integrations={"slack": SLACK})
    checked_at = datetime.now(UTC)
    await operator.observes("error", checked_at)

    for installed in ("inactive", "setup_required", "active"):
        await operator.applies(integrations={"slack": {**SLACK, "installed": installed}})
        assert await operator.sees(
            "status, declared_status, last_checked_at, evidence", "integrations_view", slack
        ) == ("error", installed, checked_at, {"http_status": 403})
    await operator.applies(integrations={"slack": {k: SLACK[k] for k in ("name", "category", "provider")}})
    assert await operator.sees("status, declared_status", "integrations_view", slack) == ("error", None)


async def test_an_observation_made_before_the_first_apply_counts(operator: Operator) -> None:
    await operator.observes("setup_required", datetime.now(UTC))

    await operator.applies(integrations={"slack": SLACK})

    assert await operator.sees("status", "integrations_view", integration_ref("slack")) == ("setup_required",)


async def test_a_dry_run_delivers_nothing(operator: Operator) -> None:
    told = await operator.applies("--dry-run", integrations={"slack": SLACK})

    assert words(told) == {("integration/slack", "new")}
    assert told["deliveries"] == 0
    assert [] == await operator.deliveries()


async def test_folding_the_log_anew_gives_the_same_rows(operator: Operator) -> None:
    for entries in ({"slack": SLACK, "groq": GROQ}, {"slack": SLACK}, {"slack": {**SLACK, "notes": "x"}}):
        await operator.applies(integrations=entries)
    await operator.observes("error", datetime.now(UTC))
    before = await snapshot(operator.engine)

    assert before == await clean_fold(operator.broker, operator.engine)


async def test_refolding_an_entry_gives_the_same_rows(operator: Operator) -> None:
    await operator.applies(integrations={"slack": SLACK, "groq": GROQ})
    await operator.applies(integrations={"slack": {**SLACK, "notes": "x"}})
    before = await snapshot(operator.engine)
    writer = Writer(operator.engine, SQL, SOURCES, lambda seq: bus.read_delivery(operator.broker.js, seq))

    # Two declarations and a change, and both listings.
    assert 5 == await writer.refold([integration_ref("slack"), integration_ref("groq")])

    assert before == await snapshot(operator.engine)


async def test_what_the_projector_has_not_read_is_waited_for(
    operator: Operator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else a change that is on its way would be taken for none, and would come after the one that took it back."""
    write(operator.folder, integrations={"slack": SLACK})
    await operator.runs()
    monkeypatch.setattr(catalogue, "PROJECTOR_S_MAX", 0.3)

    code = await asyncio.to_thread(main, ["ssot", "apply", "--ssot", str(operator.folder)])

    assert code == 1
    assert "the projector did not read the log to its end within 0.3 s" in capsys.readouterr().err


async def test_a_clock_that_goes_back_does_not_lose_an_apply(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Behind(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) - timedelta(days=1)

    await operator.applies(integrations={"slack": SLACK})
    monkeypatch.setattr(catalogue, "datetime", Behind)

    await operator.applies(integrations={"slack": {**SLACK, "notes": "later"}, "groq": GROQ})

    slack, groq = integration_ref("slack"), integration_ref("groq")
    assert await operator.sees("notes", "integrations_view", slack) == ("later",)
    assert await operator.sees("gone", "integrations_view", groq) == (False,)


async def test_the_changes_are_printed_for_people(
    operator: Operator, capsys: pytest.CaptureFixture[str]
) -> None:
    await operator.applies(integrations={"slack": SLACK, "groq": GROQ})
    write(operator.folder, integrations={"slack": {**SLACK, "notes": "now"}})

    assert 0 == await asyncio.to_thread(main, ["ssot", "apply", "--dry-run", "--ssot", str(operator.folder)])

    printed = capsys.readouterr().out
    assert "notes: - → now" in printed
    assert "odooops:integration/groq removed" in " ".join(printed.split())
    assert "2 changes, nothing delivered: this was a dry run" in printed
