"""Settings come from the environment or from files, are named where they are wrong, and never shown if secret."""

from __future__ import annotations

import os
import traceback
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from runtime import settings
from runtime.settings import BadSettings, Settings, load, secret_values

SECRET = "hunter2"
SECRETS = sorted(
    name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment in which nothing of ours is set."""
    ours = tuple(name.upper() for name in Settings.model_fields)
    for name in os.environ:
        if name.upper().removesuffix("_FILE") in ours:
            monkeypatch.delenv(name)
    return monkeypatch


def written(tmp_path: Path, content: bytes) -> str:
    """The path of a file that holds `content`."""
    path = tmp_path / f"file{len(list(tmp_path.iterdir()))}"
    path.write_bytes(content)
    return str(path)


def refusal(read: Any, *given: Any) -> str:
    """Why the settings are not taken; whatever is printed of it, the secret is not in it."""
    with pytest.raises(BadSettings) as refused:
        read(*given)
    assert SECRET not in "".join(traceback.format_exception(refused.value))
    assert SECRET not in repr(refused.value)
    return str(refused.value)


def test_without_any_variable_the_defaults_hold() -> None:
    given = load()
    assert (8420, "127.0.0.1", Path("ssot"), "json", 1) == (
        given.odooops_port,
        given.odooops_host,
        given.odooops_ssot_dir,
        given.odooops_log_format,
        given.nats_replicas,
    )
    assert {None} == {getattr(given, name) for name in SECRETS}


def test_a_variable_is_taken_from_the_environment(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("ODOOOPS_PORT", "8421")
    environment.setenv("ODOOOPS_SSOT_DIR", "elsewhere")
    environment.setenv("NATS_URL", "nats://a")
    assert (8421, Path("elsewhere"), "nats://a") == (
        load().odooops_port,
        load().odooops_ssot_dir,
        load().nats_for("ingest"),
    )


@pytest.mark.parametrize("replicas", [1, 3, 5])
def test_a_number_of_replicas_is_taken_from_text(environment: pytest.MonkeyPatch, replicas: int) -> None:
    environment.setenv("NATS_REPLICAS", str(replicas))
    assert replicas == load().nats_replicas


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_variable_is_taken_from_a_file(
    environment: pytest.MonkeyPatch, tmp_path: Path, ending: str
) -> None:
    environment.setenv("DATABASE_URL_FILE", written(tmp_path, f"postgresql://größe{ending}".encode()))
    environment.setenv("ODOOOPS_PORT_FILE", written(tmp_path, f"8421{ending}".encode()))
    assert "postgresql://größe" == load().migrator_database()
    assert 8421 == load().odooops_port


def test_what_is_given_goes_before_the_environment_and_the_environment_before_a_file(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("ODOOOPS_PORT_FILE", written(tmp_path, b"1"))
    assert 1 == load().odooops_port
    environment.setenv("ODOOOPS_PORT", "2")
    assert 2 == load().odooops_port
    assert 3 == load(odooops_port=3).odooops_port


def test_an_empty_variable_is_not_set(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in Settings.model_fields:
        environment.setenv(name.upper(), "")
        environment.setenv(f"{name.upper()}_FILE", "")
    assert 8420 == load().odooops_port
    assert "DATABASE_URL is not set: give a login that may create schemas and roles" == refusal(
        load().migrator_database
    )
    environment.setenv("NATS_URL_FILE", written(tmp_path, b"nats://a"))
    assert "nats://a" == load().nats_for("ingest")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "NATS_URL_FILE names a file that cannot be read: No such file or directory"),
        (b"", "NATS_URL_FILE names an empty file"),
        (b" \n", "NATS_URL_FILE names an empty file"),
        (SECRET.encode() + b"\xff", "NATS_URL_FILE names a file that is not UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_by_its_variable(
    environment: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = str(tmp_path / "missing") if content is None else written(tmp_path, content)
    environment.setenv("NATS_URL_FILE", path)
    assert reason == refusal(load)


def test_a_secret_that_is_given_where_its_file_belongs_is_not_shown(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("NATS_URL_FILE", SECRET)
    environment.setenv("SOME_SECRET_FILE", SECRET)
    assert "NATS_URL_FILE" in refusal(load)
    assert "SOME_SECRET_FILE" in refusal(secret_values, ["SOME_SECRET"])


@pytest.mark.parametrize("name", ["ODOOOPS_PORT", "ODOOOPS_OPS_PORT", "NATS_REPLICAS", "ODOOOPS_LOG_FORMAT"])
def test_a_wrong_value_is_named_by_its_variable_and_not_shown(
    environment: pytest.MonkeyPatch, name: str
) -> None:
    environment.setenv(name, SECRET)
    assert refusal(load).startswith(f"wrong settings: {name}: Input should be")


def test_all_wrong_values_are_named_at_once(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("ODOOOPS_PORT", "-1")
    environment.setenv("ODOOOPS_OPS_PORT", "65536")
    environment.setenv("NATS_REPLICAS", "2")
    said = refusal(load)
    assert all(name in said for name in ("ODOOOPS_PORT: ", "ODOOOPS_OPS_PORT: ", "NATS_REPLICAS: "))


def test_each_address_and_token_is_a_secret() -> None:
    named = {name for name in Settings.model_fields if name.endswith(("token", "headers")) or "_url" in name}
    assert named - {"slack_api_url"} == set(SECRETS)


def test_a_secret_is_never_shown(environment: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        environment.setenv(name.upper(), f"nats://user:{SECRET}@host")
    given = load()
    for shown in (repr(given), str(given), str(given.model_dump()), given.model_dump_json()):
        assert SECRET not in shown
    with pytest.raises(ValidationError) as frozen:
        given.nats_url = SecretStr("other")  # type: ignore[misc]
    assert SECRET not in str(frozen.value)
    assert SECRET in given.nats_for("ingest")


@pytest.mark.parametrize("user", ["ingest", "projector", "notifier", "reader", "operator"])
def test_a_users_own_broker_address_goes_before_the_common_one(
    environment: pytest.MonkeyPatch, user: str
) -> None:
    assert f"neither NATS_URL_{user.upper()} nor NATS_URL is set" == refusal(load().nats_for, user)
    environment.setenv("NATS_URL", "nats://common")
    assert "nats://common" == load().nats_for(user)
    environment.setenv(f"NATS_URL_{user.upper()}", "nats://own")
    assert "nats://own" == load().nats_for(user)


@pytest.mark.parametrize("user", ["projector", "notifier", "reader", "operator"])
def test_nobody_uses_the_migrators_database_login(environment: pytest.MonkeyPatch, user: str) -> None:
    environment.setenv("DATABASE_URL", f"postgresql://admin:{SECRET}@host")
    assert f"DATABASE_URL_{user.upper()} is not set: give the {user}'s own login" == refusal(
        load().database_for, user
    )
    environment.setenv(f"DATABASE_URL_{user.upper()}", "postgresql://own")
    assert "postgresql://own" == load().database_for(user)


@pytest.fixture
def secrets(environment: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without the secrets A and B."""
    for name in ("A", "B", "A_FILE", "B_FILE"):
        environment.delenv(name, raising=False)
    return environment


def test_secrets_come_by_name_in_order_and_only_where_they_are_set(secrets: pytest.MonkeyPatch) -> None:
    assert [] == secret_values(["A", "B"])
    secrets.setenv("B", "b")
    assert [("B", b"b")] == secret_values(["A", "B"])
    secrets.setenv("A", "a")
    assert [("A", b"a"), ("B", b"b")] == secret_values(["A", "B"])
    assert [("B", b"b"), ("A", b"a")] == secret_values(["B", "A"])
    secrets.setenv("A", "")
    assert [("B", b"b")] == secret_values(["A", "B"])


@pytest.mark.parametrize("value", [" a ", '"a"', "'a'", "a=b#c", "größe", "a\n", "a\\n"])
def test_a_secret_is_taken_as_it_stands(secrets: pytest.MonkeyPatch, value: str) -> None:
    secrets.setenv("A", value)
    assert [("A", value.encode())] == secret_values(["A"])


def test_a_secret_may_be_bytes_that_are_no_text(secrets: pytest.MonkeyPatch) -> None:
    secrets.setenv("A", os.fsdecode(b"\xffa"))
    assert [("A", b"\xffa")] == secret_values(["A"])


def test_each_line_of_a_file_is_a_secret_named_by_its_line(
    secrets: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secrets.setenv("A", "first")
    secrets.setenv("A_FILE", written(tmp_path, b' "a" \r\n\r\nb\xff\n\nc'))
    assert [
        ("A", b"first"),
        ("A_FILE:1", b' "a" '),
        ("A_FILE:3", b"b\xff"),
        ("A_FILE:5", b"c"),
    ] == secret_values(["A"])


def test_a_file_without_a_line_holds_no_secret(secrets: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secrets.setenv("A_FILE", written(tmp_path, b"\r\n\n"))
    assert [] == secret_values(["A"])


@pytest.mark.parametrize("path", ["missing", "."])
def test_a_secrets_file_that_cannot_be_read_is_named_by_its_variable(
    secrets: pytest.MonkeyPatch, tmp_path: Path, path: str
) -> None:
    secrets.setenv("A_FILE", str(tmp_path / path))
    assert refusal(secret_values, ["A"]).startswith("A_FILE names a file that cannot be read: ")


def test_more_secrets_than_are_tried_are_refused_and_none_is_shown(
    secrets: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    most = settings.SECRETS_PER_SOURCE_MAX
    secrets.setenv("A_FILE", written(tmp_path, f"{SECRET}\n".encode() * most))
    assert most == len(secret_values(["A"]))
    secrets.setenv("B", SECRET)
    assert f"A: {most + 1} secrets are set, at most {most} are tried" == refusal(secret_values, ["A", "B"])


def test_a_blank_line_is_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"  \n\n\t\nreal one\n")
    monkeypatch.setenv("A_SECRET", "   ")
    monkeypatch.setenv("A_SECRET_FILE", str(tmp_path / "secret"))

    assert settings.secret_values(["A_SECRET"]) == [("A_SECRET_FILE:4", b"real one")]


def test_trusted_proxies_are_a_list_of_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings.load().odooops_trusted_proxies == ()
    monkeypatch.setenv("ODOOOPS_TRUSTED_PROXIES", "10.0.0.0/8, fd00::/8,192.0.2.7")
    assert [str(each) for each in settings.load().odooops_trusted_proxies] == [
        "10.0.0.0/8",
        "fd00::/8",
        "192.0.2.7/32",
    ]


@pytest.mark.parametrize(
    ("wrong", "why"), [("the proxy", "does not appear to be"), ("172.18.0.1/16", "has host bits set")]
)
def test_a_wrong_network_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, wrong: str, why: str
) -> None:
    monkeypatch.setenv("ODOOOPS_TRUSTED_PROXIES", f"10.0.0.0/8, {wrong}")
    said = refusal(settings.load)
    assert "ODOOOPS_TRUSTED_PROXIES: " in said
    assert wrong in said
    assert why in said
