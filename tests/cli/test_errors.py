"""Whatever goes wrong is one sentence on standard error, and no exit code of 0."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from cli import deliveries
from cli.main import main
from cli.reach import Servers
from runtime import embedded, state
from runtime.settings import BadSettings

ROOT = Path(__file__).parents[2]
PASSWORD = "the-password"
NOBODY_DB = f"postgresql://reader:{PASSWORD}@127.0.0.1:1/odooops"
NOBODY_NATS = f"nats://reader:{PASSWORD}@127.0.0.1:1"

COMMANDS: list[list[str]] = [
    ["status"],
    ["status", "--json"],
    ["deliveries", "list"],
    ["deliveries", "show", "github:1"],
    ["deliveries", "show", "1"],
    ["send", __file__, "--event", "issues"],
    ["observe", "digitalocean", "droplets", __file__],
    ["sql", "SELECT 1"],
    ["ssot", "apply"],
    ["rebuild"],
    ["verify", "builds"],
    ["parked", "retry", "--all", "--yes"],
]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("NATS_URL", "DATABASE_URL", "DATABASE_URL_READER", "ODOOOPS_DATA_DIR", "ODOOOPS_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def sentence(capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence that was said."""
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("odooops: ")
    assert told.err.count("\n") == 1
    assert "Traceback" not in told.err
    return told.err.removeprefix("odooops: ").strip()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_where_nothing_runs_every_command_says_so(
    command: Sequence[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([*command, "--data-dir", str(tmp_path / "none")]) == 1
    assert sentence(capsys) == f"no servers run in {tmp_path / 'none'}: start them with `odooops up`"


def test_the_data_folder_may_come_from_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ODOOOPS_DATA_DIR", str(tmp_path / "elsewhere"))
    assert main(["status"]) == 1
    assert str(tmp_path / "elsewhere") in sentence(capsys)


def test_the_data_folder_is_the_current_folders_unless_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["status"]) == 1
    assert str(tmp_path / ".odooops") in sentence(capsys)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["nope"], "No such command 'nope'."),
        (["status", "--nope"], "No such option: --nope"),
        (["sql"], "Missing argument 'STATEMENT'."),
        (["sql", "SELECT 1", "--json", "--csv"], "choose --json or --csv"),
        (["deliveries", "list", "--status", "lost"], "'lost' is not one of"),
        (["deliveries", "list", "--limit", "100000"], "less than or equal to 1000"),
        (["send", "/no/such/file", "--event", "x"], "'/no/such/file' does not exist"),
        (["observe", "digitalocean"], "Missing argument 'KIND'."),
        (["observe", "digitalocean", "droplets", "/no/such/file"], "there is no file '/no/such/file'"),
        (["up", "--port", "70000"], "less than or equal to 65535"),
    ],
)
def test_a_wrong_call_is_a_sentence_and_exit_code_2(
    command: Sequence[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 2
    assert says in sentence(capsys)


def test_a_wrong_setting_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ODOOOPS_PORT", "many")
    assert main(["up"]) == 1
    assert sentence(capsys).startswith("wrong settings: ODOOOPS_PORT: ")


def test_a_database_that_is_away_is_named_without_its_password(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL_READER", NOBODY_DB)
    assert main(["sql", "SELECT 1"]) == 1
    told = sentence(capsys)
    assert told.startswith("the database at 127.0.0.1:1 does not answer: ")
    assert PASSWORD not in told


def test_an_operators_login_that_is_missing_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL_READER", NOBODY_DB)
    assert main(["rebuild"]) == 1
    told = sentence(capsys)
    assert told.startswith("DATABASE_URL_OPERATOR is not set")
    assert PASSWORD not in told


def test_the_logins_of_one_command_lead_to_one_place(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    running = SimpleNamespace(database={"reader": NOBODY_DB, "operator": NOBODY_DB.replace(":1/", ":2/")})
    monkeypatch.setattr(state, "read", lambda _: running)
    monkeypatch.setenv("DATABASE_URL_READER", NOBODY_DB)
    assert Servers(tmp_path, named=False).database("operator") == running.database["operator"]
    monkeypatch.setenv("DATABASE_URL_READER", NOBODY_DB.replace(":1/", ":3/"))
    assert Servers(tmp_path, named=True).database("operator") == running.database["operator"]
    with pytest.raises(BadSettings, match="DATABASE_URL_OPERATOR is not set"):
        Servers(tmp_path, named=False).database("operator")


def test_tables_of_a_time_to_come_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rebuild", "--as-of", "2999-01-01", "--into", "ops_then"]) == 1
    assert "lies ahead" in sentence(capsys)


def test_a_status_without_servers_calls_nothing_well_and_nothing_zero(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL_READER", NOBODY_DB)
    monkeypatch.setenv("NATS_URL_READER", NOBODY_NATS)
    assert main(["status"]) == 1
    told = capsys.readouterr()
    states = dict(
        line.split()[:2] for line in told.out.splitlines()[2:] if line and ":" not in line.split()[0]
    )
    assert states["broker"] == states["database"] == "bad"
    assert {states[part] for part in ("streams", "consumers", "migrations", "ledger", "sources")} == {
        "unknown"
    }
    assert "all together: bad" in told.out
    assert PASSWORD not in told.out + told.err


def test_a_delivery_without_servers_names_both(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL_READER", NOBODY_DB)
    monkeypatch.setenv("NATS_URL_READER", NOBODY_NATS)
    assert main(["deliveries", "show", "7"]) == 1
    told = sentence(capsys)
    assert "the database at 127.0.0.1:1 does not answer" in told
    assert "the broker at 127.0.0.1:1 does not answer" in told
    assert PASSWORD not in told


def test_a_source_that_is_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["send", __file__, "--event", "x", "--source", "gitlab", "--url", "http://127.0.0.1:1"]) == 1
    assert sentence(capsys).startswith("no source that takes requests is called gitlab: known are ")


def test_an_ingest_that_is_away_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINE", "secret")
    arguments = ["--event", "x", "--url", "http://127.0.0.1:1", "--secret-env"]
    assert main(["send", __file__, *arguments, "MINE"]) == 1
    assert sentence(capsys).startswith("ingest at http://127.0.0.1:1 did not answer: ")
    assert main(["send", __file__, *arguments, "OTHER"]) == 1
    assert sentence(capsys) == "OTHER is not set"


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8420", "http://127.0.0.1:abc", "http://exa mple", "http://[", "http://" + "x" * 64 + ".org"],
)
def test_an_address_that_is_none_is_named(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINE", "secret")
    assert main(["send", __file__, "--event", "x", "--secret-env", "MINE", "--url", url]) == 1
    assert sentence(capsys) == f"{url} is no address: give one like http://127.0.0.1:8420"


@pytest.mark.parametrize("command", [["status"], ["sql", "SELECT 1"], ["deliveries", "list"]], ids=" ".join)
def test_a_database_address_that_is_none_is_named(
    command: Sequence[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL_READER", "nonsense")
    monkeypatch.setenv("NATS_URL_READER", NOBODY_NATS)
    assert main(command) == 1
    assert "is none like postgresql://user:password@host:5432/name" in sentence(capsys)


@pytest.mark.parametrize(
    "damaged", [b"", b"{", b"[]", b"{}", b'{"nats": []}', b'{"nats": {"ingest": 1}}', b"\xff"]
)
def test_damaged_passwords_are_named_with_the_way_out(damaged: bytes, tmp_path: Path) -> None:
    file = tmp_path / "credentials.json"
    file.write_bytes(damaged)
    with pytest.raises(BadSettings) as told:
        embedded.credentials(tmp_path)
    assert str(told.value) == (
        f"{file} is damaged: restore it, or remove the folder {tmp_path} with all its data"
    )


@pytest.mark.parametrize("sequence", ["0", "000", str(2**63), "9" * 23, "9" * 5000])
def test_a_number_that_is_no_sequence_is_refused(sequence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deliveries", "show", sequence]) == 1
    assert sentence(capsys).endswith(f" is no sequence: one is 1 to {2**63 - 1}")


def test_a_name_without_its_source_is_refused_with_a_guess(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deliveries", "show", "by-hand-1"]) == 1
    assert "try github:by-hand-1" in sentence(capsys)


@pytest.mark.parametrize("statement", ["SELECT '\udcff'", "SELECT '\0'"])
def test_a_statement_that_is_no_text_is_refused(
    statement: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL_READER", NOBODY_DB)
    assert main(["sql", statement]) == 1
    assert sentence(capsys).startswith("the statement holds a ")


def test_a_statement_from_a_pipe_that_is_no_text_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cli", "sql", "-"],
        input=b"SELECT '\xff'",
        capture_output=True,
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL_READER": NOBODY_DB},
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, b"odooops: the statement holds a byte that is not UTF-8\n")


def test_help_is_printed_where_nothing_was_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert capsys.readouterr().out.startswith("Usage: ")


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = [
        sys.executable,
        "-c",
        "from cli.main import main; import sys; sys.exit(main())",
        "up",
        "--help",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("given", "before"),
    [
        ("90m", timedelta(minutes=90)),
        ("2d", timedelta(days=2)),
        ("1 w", timedelta(weeks=1)),
        ("2026-01-31T11:00", timedelta(hours=1)),
        ("2026-01-31T13:00+02:00", timedelta(hours=1)),
        ("2026-01-31", timedelta(hours=12)),
    ],
)
def test_since_takes_ages_and_times(given: str, before: timedelta) -> None:
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert deliveries.since(given, now) == now - before


@pytest.mark.parametrize("given", ["", "soon", "5", "999999w", "2026-13-01"])
def test_since_refuses_the_rest(given: str) -> None:
    with pytest.raises(BadSettings, match="give an age like 90m"):
        deliveries.since(given, datetime(2026, 1, 31, tzinfo=UTC))
