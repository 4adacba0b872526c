"""What `odooops up` decides before it starts anything: whether there is something to poll, who knows which secret."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from cli.up import SERVICES, Start
from providers.polling import Polling, Scope
from providers.registry import PROVIDERS
from runtime import settings
from runtime.settings import BadSettings

ACME = """\
name: acme
provider: github
endpoint: /webhooks/acme
secrets: [ACME_TOKEN_2, ACME_HOOK]
api: {base_url: "https://api.example.com", auth: bearer, secret: ACME_TOKEN}
poll_interval_s: 900
"""


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in list(os.environ):
        if name.startswith(("ACME_", "ODOOOPS_", "NATS_URL", "DATABASE_URL")):
            monkeypatch.delenv(name)
    providers = tmp_path / "ssot" / "providers"
    providers.mkdir(parents=True)
    (providers / "acme.yaml").write_text(ACME)
    monkeypatch.setenv("ODOOOPS_SSOT_DIR", str(tmp_path / "ssot"))
    named(monkeypatch, "repos/org/shop")
    return tmp_path / "data"


def named(monkeypatch: pytest.MonkeyPatch, *scopes: str) -> None:
    """Let the options of the source name these to poll."""
    polling = Polling(scopes=lambda source: [Scope(name=name, parts={}) for name in scopes])
    monkeypatch.setitem(PROVIDERS, "github", replace(PROVIDERS["github"], polling=polling))


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start(folder: Path, held: ExitStack) -> Start:
    return Start(folder, settings.load(), None, held, 0)


def test_a_poller_is_started_where_something_is_named_and_the_secret_is_set(
    folder: Path, held: ExitStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert SERVICES == start(folder, held).services
    assert {"acme": "not polled: set ACME_TOKEN (or ACME_TOKEN_FILE)"} == start(folder, held).not_polled
    secret = tmp_path / "token"
    secret.write_text("t\n")
    monkeypatch.setenv("ACME_TOKEN_FILE", str(secret))
    assert (*SERVICES, "poller") == start(folder, held).services
    assert {} == start(folder, held).not_polled
    named(monkeypatch)
    assert SERVICES == start(folder, held).services
    unnamed = "not polled: name what to poll in the options of ssot/providers/acme.yaml"
    assert {"acme": unnamed} == start(folder, held).not_polled


def test_the_secret_of_an_api_is_the_pollers_alone(
    folder: Path, held: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ACME_TOKEN", "ACME_TOKEN_2", "ACME_HOOK"):
        monkeypatch.setenv(name, "a secret")
    starting = start(folder, held)
    known = {
        name: {each for each in starting.env(name) if each.startswith("ACME_")}
        for name in (*SERVICES, "poller")
    }
    assert {
        "ingest": {"ACME_TOKEN_2", "ACME_HOOK"},
        "projector": set(),
        "notifier": set(),
        "poller": {"ACME_TOKEN"},
    } == known


def test_the_pollers_login_at_own_servers_is_asked_for_where_it_is_started(
    folder: Path, held: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    for user in ("ingest", "projector", "notifier", "reader", "operator"):
        monkeypatch.setenv(f"NATS_URL_{user.upper()}", "nats://127.0.0.1:1")
    start(folder, held)
    monkeypatch.setenv("ACME_TOKEN", "a secret")
    with pytest.raises(BadSettings, match="NATS_URL_POLLER"):
        start(folder, held)


def test_the_ops_ports_follow_one_another_where_the_first_is_given(
    folder: Path, held: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as others:
        first = next(each for each in range(21_000, 60_000, 5) if start_of(folder, others, each, monkeypatch))
        with pytest.raises(BadSettings, match=f"port {first}, for ingest, cannot be had"):
            start(folder, held)
    assert {name: first + n for n, name in enumerate(SERVICES)} == start(folder, held).ops_ports
    monkeypatch.setenv("ODOOOPS_OPS_PORT", "65535")
    with pytest.raises(BadSettings, match="ODOOOPS_OPS_PORT is 65535"):
        start(folder, held)


def start_of(folder: Path, held: ExitStack, ops_port: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the ports from `ops_port` on could be had, and are now held."""
    monkeypatch.setenv("ODOOOPS_OPS_PORT", str(ops_port))
    try:
        start(folder, held)
    except BadSettings:
        return False
    return True
