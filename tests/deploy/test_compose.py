"""What compose.yaml promises: health checks, secrets by file, one published port, no more rights than needed."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from runtime import permissions, settings, ssot
from runtime.permissions import USERS
from runtime.settings import Settings
from runtime.streams import INGEST_MEMORY_BYTES_MAX
from tests.deploy import brokers
from tests.deploy.brokers import CONFIG, MAKE_SECRETS, ROOT
from tests.deploy.composed import SECRETS_IN_CONTAINER, compose, copied, is_ours, services

ONE_SHOT = {"migrate", "provision", "odooops"}
CLUSTER = ("nats-1", "nats-2", "nats-3")
CHOSEN = {"github_webhook_secret", "supabase_webhook_token"}
GIVEN = {"plane_webhook_secret", "vercel_webhook_secret", "mailgun_signing_key", "slack_signing_secret"}
"""Secrets that their senders make."""
TOKENS = {
    *("github_token", "plane_api_key", "vercel_token"),
    *("mailgun_api_key", "digitalocean_token", "supabase_access_token"),
}
"""What the APIs of providers are asked with."""
WITHOUT_CODE = {"cloudevents", "generic", "standard"}
HELD = {
    "ingest": {"nats_url_ingest", *CHOSEN, *GIVEN},
    "projector": {"nats_url_projector", "database_url_projector"},
    "notifier": {"nats_url_notifier", "database_url_notifier"},
    "poller": {"nats_url_poller", *TOKENS},
    "provision": {"nats_url_operator"},
    "postgres": {"postgres_password"},
    **{node: {"nats_passwords"} for node in CLUSTER},
}

BESIDES = ("deploy/slack.yaml", "deploy/traces.yaml")
"""What is put over compose.yaml where it is wanted."""
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"

each_service = pytest.mark.parametrize("name", sorted(services()))


def secrets_of(name: str) -> set[str]:
    return {
        each["source"] if isinstance(each, dict) else each for each in services()[name].get("secrets", [])
    }


def test_there_is_a_cluster_of_three_a_database_and_one_container_per_service() -> None:
    here = {folder.name for folder in (ROOT / "services").iterdir() if (folder / "__main__.py").exists()}
    assert {*CLUSTER, "postgres", *here, *ONE_SHOT} == set(services())
    for name in here:
        assert ["python", "-m", f"services.{name}"] == services()[name]["command"]


@each_service
def test_a_service_is_checked_and_restarted_or_runs_once(name: str) -> None:
    service = services()[name]
    assert (name in ONE_SHOT) == ("healthcheck" not in service)
    assert ("no" if name in ONE_SHOT else "unless-stopped") == service["restart"]


@each_service
def test_a_service_has_no_more_rights_than_it_needs(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert ["ALL"] == service["cap_drop"]
    assert ["no-new-privileges:true"] == service["security_opt"]
    assert not {"cap_add", "privileges", "privileged", "pid", "ipc", "network_mode", "devices"} & set(service)
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["pids_limit"] > 0


def test_ingest_gets_the_memory_that_it_is_held_to() -> None:
    assert f"{INGEST_MEMORY_BYTES_MAX // 1024**3}g" == services()["ingest"]["mem_limit"]


@each_service
def test_an_image_is_pinned_or_ours(name: str) -> None:
    image = services()[name]["image"]
    assert is_ours(services()[name]) or re.fullmatch(r"(nats:2\.\d+-alpine|postgres:18)", image)


def test_only_ingest_publishes_a_port_and_on_loopback() -> None:
    assert {"ingest": ["${ODOOOPS_PUBLISH:-127.0.0.1:8420}:8420"]} == {
        name: service["ports"] for name, service in services().items() if "ports" in service
    }


def test_accepting_a_webhook_needs_the_brokers_and_nothing_else() -> None:
    ingest = services()["ingest"]
    assert {"provision": {"condition": "service_started"}} == ingest["depends_on"]
    assert "data" not in ingest["networks"]
    assert [{"internal": True}] * 2 == [compose()["networks"][name] for name in ("bus", "data")]


def test_the_poller_reaches_brokers_and_providers_and_no_database() -> None:
    poller = services()["poller"]
    assert ["bus", "outside"] == poller["networks"]
    assert {"provision": {"condition": "service_started"}} == poller["depends_on"]


@pytest.mark.parametrize("name", ["projector", "notifier"])
def test_nothing_is_written_before_its_tables_are_there(name: str) -> None:
    assert {"condition": "service_completed_successfully"} == services()[name]["depends_on"]["migrate"]


def test_the_brokers_differ_in_name_and_volume_only() -> None:
    def without_number(value: Any, n: str) -> Any:
        return repr(value).replace(n, "nats-N")

    assert 1 == len({without_number(services()[name], name) for name in CLUSTER})


@each_service
def test_a_secret_comes_by_file_and_only_to_who_needs_it(name: str) -> None:
    variables = services()[name].get("environment", {})
    secret = re.compile("PASSWORD|SECRET|TOKEN|URL|KEY")
    by_file = {key: value for key, value in variables.items() if key.endswith("_FILE")}
    assert [] == [key for key in variables if secret.search(key) and key not in by_file]
    assert all(value.startswith(SECRETS_IN_CONTAINER) for value in by_file.values())
    read = {value.removeprefix(SECRETS_IN_CONTAINER) for value in by_file.values()}
    assert secrets_of(name) - {"nats_passwords"} == read
    assert HELD.get(name, secrets_of(name)) == secrets_of(name)


@each_service
def test_every_variable_of_ours_is_one_that_is_read(name: str) -> None:
    if not is_ours(services()[name]):
        return
    files = ssot.load_providers(ROOT / "ssot").values()
    names = {each for file in files for each in file.secrets}
    tokens = {file.api.secret for file in files if file.api is not None}
    known = {*names, *tokens, *(field.upper() for field in Settings.model_fields)}
    variables = {key.removesuffix("_FILE") for key in services()[name].get("environment", {})}
    assert variables <= known


def test_each_service_that_makes_spans_is_told_where_they_go() -> None:
    overlay = YAML(typ="safe").load(ROOT / "deploy" / "traces.yaml")["services"]
    making = {path.parts[-2] for path in (ROOT / "services").glob("*/*.py") if "tracing" in path.read_text()}
    assert making == {name for name, service in overlay.items() if ENDPOINT in service["environment"]}


def test_the_secrets_are_those_that_the_script_makes(tmp_path: Path) -> None:
    made = brokers.make_secrets(tmp_path)
    assert {name: {"file": f"./deploy/secrets/{name}"} for name in made} == compose()["secrets"]
    assert set(compose()["secrets"]) == set().union(*(secrets_of(name) for name in services()))


def test_ingest_has_the_secret_of_each_source_that_has_code_of_its_own_and_posts() -> None:
    declared = ssot.load_providers(ROOT / "ssot").values()
    posting = [each for each in declared if each.endpoint and each.provider_name not in WITHOUT_CODE]
    wanted = {
        f"{each.secrets[0]}_FILE": f"{SECRETS_IN_CONTAINER}{each.secrets[0].lower()}" for each in posting
    }
    given = services()["ingest"]["environment"].items()
    assert wanted == {k: v for k, v in given if k.endswith("_FILE") and not k.startswith("NATS_URL")}


def test_the_poller_has_the_token_of_each_source_whose_api_is_named() -> None:
    declared = ssot.load_providers(ROOT / "ssot").values()
    wanted = {f"{each.api.secret}_FILE" for each in declared if each.api is not None}
    given = {name for name in services()["poller"]["environment"] if name.endswith("_FILE")}
    assert wanted == given - {"NATS_URL_POLLER_FILE"}


def test_what_a_sender_makes_is_empty_until_it_is_filled(tmp_path: Path) -> None:
    made = brokers.make_secrets(tmp_path)
    assert GIVEN | TOKENS == {name for name in made if not made[name]}


def test_the_script_adds_what_an_upgrade_needs_and_leaves_the_rest(tmp_path: Path) -> None:
    before = brokers.make_secrets(tmp_path)
    (tmp_path / "vercel_webhook_secret").write_text("filled\n")
    for name in ("slack_signing_secret", "supabase_webhook_token"):
        (tmp_path / name).unlink()
    after = brokers.make_secrets(tmp_path)
    assert before.keys() == after.keys()
    assert {"vercel_webhook_secret", "supabase_webhook_token"} == {
        name for name in after if before[name] != after[name]
    }


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_script_lets_the_poller_in_where_an_earlier_version_made_the_secrets(
    tmp_path: Path, interrupted: bool
) -> None:
    before = brokers.make_secrets(tmp_path)
    passwords = tmp_path / "nats_passwords"
    (tmp_path / "nats_url_poller").unlink()
    for name in TOKENS:
        (tmp_path / name).unlink()
    for name in (
        "nats_url_notifier",
        "nats_passwords",
    ):  # the brokers are elsewhere, and each has its machine
        path = tmp_path / name
        path.write_text(path.read_text().replace("@nats-1:", "@bus-1.example.com:"))
    if not interrupted:
        kept = [line for line in passwords.read_text().splitlines() if "POLLER" not in line]
        passwords.write_text("\n".join(kept))

    after = brokers.make_secrets(tmp_path)

    assert before.keys() == after.keys()
    (password,) = re.findall(
        '^NATS_PASSWORD_POLLER: "([0-9a-f]{48})"$', after["nats_passwords"], re.MULTILINE
    )
    hosts = ("bus-1.example.com", "nats-2", "nats-3")
    assert ",".join(f"nats://poller:{password}@{host}:4222" for host in hosts) == after["nats_url_poller"]
    others = [line for line in before["nats_passwords"].splitlines() if line.startswith("NATS_PASSWORD_")]
    assert [] == [line for line in others if "POLLER" not in line and line not in after["nats_passwords"]]
    assert after == brokers.make_secrets(tmp_path)


def test_every_made_secret_is_another_and_no_stranger_reaches_it(tmp_path: Path) -> None:
    first, second = brokers.make_secrets(tmp_path / "a"), brokers.make_secrets(tmp_path / "b")
    values = [re.findall("[0-9a-f]{48}", text) for made in (first, second) for text in made.values()]
    # Of the brokers' and of Postgres's own, the server's file and the client's hold the same one.
    assert 2 * (len(USERS) + 1 + 1 + 4 + len(CHOSEN)) == len({value for found in values for value in found})
    assert 0o700 == stat.S_IMODE((tmp_path / "a").stat().st_mode)


def test_secrets_are_never_overwritten(tmp_path: Path) -> None:
    kept = tmp_path / "database_url"
    kept.write_text("kept")
    refused = subprocess.run([MAKE_SECRETS, tmp_path], capture_output=True, text=True)
    assert 1 == refused.returncode
    assert "database_url is there already; nothing was written" in refused.stderr
    assert ([kept], "kept") == (list(tmp_path.iterdir()), kept.read_text())


@pytest.mark.parametrize("name", ["compose.yaml", "Dockerfile", "deploy/nats/nats.conf", *BESIDES])
def test_no_password_is_written_down(name: str) -> None:
    text = (ROOT / name).read_text()
    assert [] == re.findall(r"://[^/\s]*:[^/\s]*@|[0-9a-f]{32,}", text)


def test_secrets_stay_out_of_the_repository_and_the_image() -> None:
    assert "secrets/" in (ROOT / "deploy" / ".gitignore").read_text().split()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    taken = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert {"requirements.services.lock", *copied()} == taken


def test_the_image_holds_every_package_and_no_root() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "bench"}
    assert {*packages, "ssot"} == set(copied())
    assert all((ROOT / name).is_dir() for name in copied())
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^FROM python:3\.\d+\.\d+-slim-\w+$", text, re.MULTILINE)
    assert text.rstrip().endswith("USER 10001:10001")
    assert "--require-hashes" in text
    assert not re.search(r"--\w*index|://", text)


def test_the_brokers_users_are_those_of_the_permissions_table() -> None:
    fix = "run `python -m runtime.permissions deploy/nats/nats.conf`"
    assert CONFIG.read_text() == permissions.with_users(CONFIG.read_text()), fix


def test_the_brokers_passwords_are_variables() -> None:
    given = re.findall(r"password: (\S+?),", CONFIG.read_text())
    assert len(USERS) + 1 == len(given)
    assert all(each.startswith("$NATS_PASSWORD_") for each in given)


def test_a_configuration_without_users_is_refused() -> None:
    with pytest.raises(ValueError, match="no line `accounts"):
        permissions.with_users("listen: 4222\n")


def test_each_service_finds_three_brokers_in_its_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brokers.make_secrets(tmp_path)
    for user in USERS:
        monkeypatch.setenv(f"NATS_URL_{user.upper()}_FILE", str(tmp_path / f"nats_url_{user}"))
        addresses = settings.load().nats_for(user).split(",")
        assert [f"{node}:4222" for node in CLUSTER] == [each.split("@")[1] for each in addresses]


@pytest.mark.parametrize("files", [["compose.yaml"], ["compose.yaml", *BESIDES]])
def test_docker_compose_accepts_it(files: list[str]) -> None:
    command = compose_command()
    if command is None:
        pytest.skip("neither `docker-compose` nor `docker compose` is on this machine")
    options = [part for file in files for part in ("-f", str(ROOT / file))]
    checked = subprocess.run(
        [*command, *options, "--profile", "operator", "config"],
        cwd=ROOT,
        env={**os.environ, "SLACK_CHANNEL": "C0123ABCD", ENDPOINT: "http://collector:4318"},
        capture_output=True,
        text=True,
    )
    assert 0 == checked.returncode, checked.stderr


def compose_command() -> list[str] | None:
    """Compose as a command of its own, or as Docker's."""
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0:
        return [docker, "compose"]
    return None
