"""`odooops subscribe` makes a consumer and a login that may read it, and nothing that is not asked for."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from cli.main import main
from runtime import embedded, permissions, streams
from runtime.permissions import USERS, users_block
from runtime.settings import BadSettings
from tests.conftest import Broker
from tests.servers import SUBSCRIBER

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broker: Broker) -> None:
    monkeypatch.delenv("ODOOOPS_DATA_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    for user in ("reader", "operator"):
        monkeypatch.setenv(f"NATS_URL_{user.upper()}", broker.url(user))


async def test_the_consumer_is_durable_and_given_what_was_asked(
    broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    for subjects in (["events.deployment.>"], ["events.build.finished", "events.deployment.*"]):
        assert 0 == await asyncio.to_thread(main, ["subscribe", SUBSCRIBER, *subjects])
        config = (await broker.js.consumer_info(streams.EVENTS, SUBSCRIBER)).config
        given = config.filter_subjects or [config.filter_subject]
        assert (sorted(map(str, given)), config.durable_name) == (sorted(subjects), SUBSCRIBER)
    said = capsys.readouterr().out
    assert "NATS_CONSUMER=deploys" in said
    assert "python -m runtime.permissions deploy/nats/nats.conf deploys" in said


@pytest.mark.parametrize(
    ("name", "subject", "says"),
    [
        ("notifier", "events.>", "notifier is one of our own"),
        ("operator", "events.>", "operator is one of our own"),
        ("Deploys", "events.>", "is no subscriber's name"),
        ('x" }', "events.>", "is no subscriber's name"),
        ("deploys", "deliveries.>", "deliveries.> is no subject of events"),
        ("deploys", ">", "> is no subject of events"),
        ("deploys", "events.>.x", "is no subject of events"),
    ],
)
async def test_what_cannot_be_is_a_sentence(
    broker: Broker, name: str, subject: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 1 == await asyncio.to_thread(main, ["subscribe", name, subject])
    assert says in capsys.readouterr().err
    assert {"notifier"} == {each.name for each in await broker.js.consumers_info(streams.EVENTS)}


def test_a_subscribers_password_is_made_once_and_the_others_stay(tmp_path: Path) -> None:
    before = embedded.credentials(tmp_path)
    embedded.add_subscriber(tmp_path, "deploys")
    after = embedded.credentials(tmp_path)
    embedded.add_subscriber(tmp_path, "deploys")

    assert after == embedded.credentials(tmp_path)
    assert {**after["nats"]} == {**before["nats"], "deploys": after["nats"]["deploys"]}
    assert after["postgres"] == before["postgres"]


def test_a_folder_of_an_earlier_version_gets_the_passwords_of_users_that_are_new(tmp_path: Path) -> None:
    today = embedded.credentials(tmp_path)
    earlier = {**today, "nats": {user: word for user, word in today["nats"].items() if user != "poller"}}
    (tmp_path / embedded.CREDENTIALS).write_text(json.dumps(earlier))

    after = embedded.credentials(tmp_path)

    assert set(USERS) == set(after["nats"])
    assert {**after["nats"], "poller": ""} == {**earlier["nats"], "poller": ""}
    assert after["nats"]["poller"] not in ("", today["nats"]["poller"])
    assert after == embedded.credentials(tmp_path)


def test_a_name_that_would_break_the_brokers_configuration_is_refused() -> None:
    with pytest.raises(ValueError, match="no subscriber's name"):
        users_block({**dict.fromkeys(USERS, "p"), 'x"': "p"})


def test_credentials_with_such_a_name_are_damaged(tmp_path: Path) -> None:
    known = embedded.credentials(tmp_path)
    known["nats"]['x" }'] = "p"
    (tmp_path / embedded.CREDENTIALS).write_text(json.dumps(known))
    with pytest.raises(BadSettings, match="is damaged"):
        embedded.credentials(tmp_path)


def test_the_brokers_configuration_names_every_subscriber(tmp_path: Path) -> None:
    config = tmp_path / "nats.conf"
    config.write_text("listen: 4222\n\naccounts {\n}\n")

    assert 0 == permissions.main([str(config), "deploys", "audit"])

    written = config.read_text()
    assert 'user: "deploys", password: $NATS_PASSWORD_DEPLOYS' in written
    assert 'user: "audit", password: $NATS_PASSWORD_AUDIT' in written
    assert 2 == permissions.main([str(config), "Deploys"])
    assert written == config.read_text()
