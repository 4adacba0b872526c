"""`odooops up` and `demo` as an operator meets them: real processes on a folder of their own."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from runtime.embedded import DATABASE_USERS, free_port
from tests.e2e.commands import command
from tests.servers import Database, Nats

ROOT = Path(__file__).parents[2]
ISSUE = ROOT / "samples" / "github" / "03-issues.opened.json"
PATIENCE_S = 60.0
LOOK_EVERY_S = 0.1
SHOWN = (
    *(f"POST /webhooks/{name}" for name in ("github", "plane", "vercel", "mailgun", "slack", "supabase")),
    *(f"POST /webhooks/{name}" for name in ("standard/example", "cloudevents", "generic/example")),
    *("odooops observe", "published by jobs and gates", "odooops ssot apply"),
    *(
        "Spelling error",
        "Nightly backup fails on stage",
        "mg.example.com",
        "stage.example.com",
        "db_object_count",
    ),
    *("sentry", "ops.backup_jobs: row inserted", "alert.closed", "odooops trace 8d1f6c0"),
)
"""What the demo prints: each way in, and a row of each table."""
CHILDREN = {"nats", "postgres", "ingest", "projector", "notifier"}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches processes as Linux shows them")


class Up:
    """A running `odooops up` (or `demo`), its output read line by line."""

    def __init__(self, process: subprocess.Popen[bytes], data_dir: Path) -> None:
        self.process = process
        self.data_dir = data_dir
        self._rest = b""

    def until(self, what: str) -> list[str]:
        """The lines printed until one contains `what`."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + PATIENCE_S
        lines: list[str] = []
        while True:
            *whole, self._rest = self._rest.split(b"\n")
            for n, line in enumerate(whole):
                lines.append(line.decode())
                if what in lines[-1]:
                    self._rest = b"\n".join([*whole[n + 1 :], self._rest])
                    return lines
            left = deadline - time.monotonic()
            assert select.select([self.process.stdout], [], [], max(0, left))[0], f"{what!r} was not printed"
            chunk = os.read(self.process.stdout.fileno(), 65_536)
            assert chunk, f"ended without {what!r}: {lines} {self.said()}"
            self._rest += chunk

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.data_dir / "state.json").read_text())
        return found

    @property
    def pids(self) -> dict[str, int]:
        return dict(self.state["pids"])

    def said(self) -> str:
        """Everything on standard error so far."""
        return (self.data_dir / "stderr").read_text()

    def end(self, number: signal.Signals) -> int:
        """The exit code after a signal."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@contextmanager
def running(
    data_dir: Path, command: str = "up", env: Mapping[str, str] | None = None, port: int | None = None
) -> Iterator[Up]:
    """An `odooops up` while the block runs, on `port`, else on one that is free; 0: on its own."""
    data_dir.mkdir(exist_ok=True)
    arguments = [] if port == 0 else ["--port", str(port or free_port())]
    with open(data_dir / "stderr", "wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", command, "--data-dir", str(data_dir), *arguments],
            cwd=ROOT,
            env=clean_env(env),
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )
    with process:
        up = Up(process, data_dir)
        try:
            up.until("ready http://127.0.0.1:")
            yield up
        finally:
            if process.poll() is None:
                up.end(signal.SIGTERM)


def clean_env(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This environment without settings of ours."""
    ours = ("NATS_URL", "DATABASE_URL", "ODOOOPS_", "GITHUB_", "SLACK_")
    return {**{k: v for k, v in os.environ.items() if not k.startswith(ours)}, **(more or {})}


def odooops(
    up: Up, *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A command beside it."""
    return command([*arguments, "--data-dir", str(up.data_dir)], clean_env(env))


def asked(up: Up, *arguments: str) -> Any:
    """The JSON answer of a command."""
    done = odooops(up, *arguments, "--json")
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def eventually(holds: Callable[[], bool], what: str) -> None:
    """Wait until `holds`: what other processes come to gives no signal here."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(LOOK_EVERY_S)


def is_well(up: Up) -> bool:
    return odooops(up, "status").returncode == 0


def nobody_is_left(data_dir: Path) -> bool:
    """Whether no process holds the lock that all children inherit."""
    with open(data_dir / "children.lock", "rb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def titles(up: Up) -> list[str]:
    return [row["title"] for row in asked(up, "sql", "SELECT title FROM ops.work_items")]


def is_well_from_the_start(up: Up) -> None:
    """What runs, what `status` says of it, and who may read the secrets."""
    status = asked(up, "status")
    # What has an API and no token says so, and troubles nobody.
    assert [check for check in status["checks"] if check["state"] not in ("ok", "not asked")] == []
    assert (status["state"], status["ok"]) == ("ok", True)
    services = ("ingest", "projector", "notifier")
    assert {name: each["ready"] for name, each in status["services"].items()} == dict.fromkeys(services, True)
    assert set(up.pids) == CHILDREN
    for name in services:
        assert f"services.{name}" in Path(f"/proc/{up.pids[name]}/cmdline").read_text()
    for secret in ("credentials.json", "secrets/github_webhook_secret"):
        assert (up.data_dir / secret).stat().st_mode & 0o077 == 0


def takes_a_sample(up: Up) -> None:
    """One that is signed becomes a row, byte for byte; one that is not is refused."""
    sent = odooops(up, "send", str(ISSUE), "--event", "issues", "--delivery", "mine")
    assert sent.returncode == 0, sent.stderr
    assert json.loads(sent.stdout)["delivery"] == "github:mine"
    eventually(lambda: titles(up) == ["Spelling error in the README file"], "the row did not come")
    (shown,) = asked(up, "deliveries", "show", "github:mine")
    assert shown["ledger"]["status"] == "projected"
    assert shown["stored"]["body"] == ISSUE.read_text()

    wrong = odooops(up, "send", str(ISSUE), "--event", "issues", "--secret-env", "PATH")
    assert (wrong.returncode, json.loads(wrong.stdout)["reason"]) == (1, "bad_signature")


def is_the_only_one(up: Up) -> None:
    second = odooops(up, "up")
    assert second.returncode == 1
    assert second.stderr.startswith("odooops: another `odooops up` runs on ")


def ends_by_ctrl_c(up: Up) -> None:
    """At once, with nothing left but data, and commands say so."""
    assert up.end(signal.SIGINT) == 0
    assert nobody_is_left(up.data_dir)
    assert up.said().endswith("odooops: stopped, nothing is left running\n")
    stopped = odooops(up, "status")
    assert (stopped.returncode, stopped.stdout) == (1, "")
    assert stopped.stderr.startswith("odooops: no servers run in ")


@contextmanager
def somebody_elses(port: int = 0) -> Iterator[int]:
    """A port that is in use: by us, or by whoever has it already."""
    with socket.socket() as other:
        with suppress(OSError):
            other.bind(("127.0.0.1", port))
            other.listen()
        yield port or other.getsockname()[1]


def shows_no_password(up: Up) -> None:
    """No argument, no log and no other service's environment holds one."""
    made = json.loads((up.data_dir / "credentials.json").read_text())
    passwords = [word for group in made.values() for word in group.values()]
    told = up.said() + "".join(path.read_text() for path in (up.data_dir / "logs").iterdir())
    told += "".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in up.pids.values())
    assert not any(word in told for word in passwords)
    for name, pid in up.pids.items():
        known = Path(f"/proc/{pid}/environ").read_text()
        own = {made["nats"].get(name), made["postgres"].get(name)}
        assert not any(word in known for word in passwords if word not in own), name


def test_a_sample_becomes_a_row_each_killed_process_comes_back_and_ctrl_c_leaves_nothing_but_data(
    data_dir: Path,
) -> None:
    with somebody_elses(8420), running(data_dir, port=0) as up:
        taken = up.state["http_url"].rpartition(":")[2]
        assert taken != "8420"
        assert f"odooops: port 8420 is in use, taking {taken}\n" in up.said()
        is_well_from_the_start(up)
        is_the_only_one(up)
        shows_no_password(up)
        before = up.pids
        for name in sorted(before):
            os.kill(up.pids[name], signal.SIGKILL)
            eventually(lambda name=name: up.pids[name] != before[name], f"{name} was not started again")  # type: ignore[misc]
            eventually(lambda: is_well(up), f"not well after {name} was killed")
            assert f"odooops: {name} ended (killed by SIGKILL): starting it again in " in up.said()
        takes_a_sample(up)
        shows_no_password(up)
        ends_by_ctrl_c(up)


def test_nobody_survives_a_killed_supervisor_and_the_next_start_finds_data_and_secrets(
    data_dir: Path,
) -> None:
    with running(data_dir) as up:
        takes_a_sample(up)
        assert up.end(signal.SIGKILL) == -signal.SIGKILL
        eventually(lambda: nobody_is_left(data_dir), "somebody survived")
        assert "no servers run in" in odooops(up, "status").stderr
    # As after a crash of the machine: the number in it is some other process now.
    (data_dir / "postgres" / "postmaster.pid").write_text(f"{os.getpid()}\n{data_dir}/postgres\n0\n1\n\n\n")
    own = data_dir / "secrets" / "github_webhook_secret"
    made = own.read_text()
    second = {"GITHUB_WEBHOOK_SECRET_2": "the next one"}
    with running(data_dir, env=second) as up:
        assert len(titles(up)) == 1
        assert up.state["secret_files"]["GITHUB_WEBHOOK_SECRET"] == str(own)
        assert "GITHUB_WEBHOOK_SECRET_2" not in up.state["secret_files"]
        both_secrets_count(up, second)
        secrets_are_read_again(up)
        assert up.end(signal.SIGTERM) == 0
    assert own.read_text() == made


def both_secrets_count(up: Up, second: Mapping[str, str]) -> None:
    """The folder's own, and the one that is given beside it."""
    for given in ((), ("--secret-env", *second)):
        sent = odooops(up, "send", str(ISSUE), "--event", "issues", *given, env=second)
        assert sent.returncode == 0, sent.stdout


def secrets_are_read_again(up: Up) -> None:
    """What the doors take is asked of ingest, which reads the files of secrets again when they change."""
    (up.data_dir / "secrets" / "plane_webhook_secret").write_text("")
    wrong = ("send", str(ISSUE), "--event", "issue", "--source", "vercel", "--secret-env", "WRONG")
    assert odooops(up, *wrong, env={"WRONG": "not Vercel's"}).returncode == 1

    def told() -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(odooops(up, "status", "--json").stdout)
        return facts

    eventually(lambda: "plane" in str(told()["closed_sources"]), "status names the closed source")
    assert told()["refused"] == {"vercel": {"bad_signature": 1}}


def test_a_busy_port_that_was_asked_for_is_refused(data_dir: Path) -> None:
    with somebody_elses() as port:
        refused = command(["up", "--port", str(port), "--data-dir", str(data_dir)], clean_env())
    assert (1, f"odooops: port {port} is in use: give another by --port\n") == (
        refused.returncode,
        refused.stderr,
    )


def test_the_demo_shows_every_provider_and_does_so_again(data_dir: Path) -> None:
    first = ("21 projected", "3 projected, 1 duplicate", "2 projected, 1 conflict", "2 ignored")
    again = ("21 duplicates", "4 duplicates", "7 duplicates", "2 projected, 1 conflict", "nothing changed")
    found: list[list[str]] = []
    for became in (first, again):
        with running(data_dir, command="demo") as demo:
            printed = "\n".join(demo.until("README.md"))
            for expected in (*SHOWN, *became):
                assert expected in printed
            assert printed.count("Slack messages (dry run; with credentials: too old, only recorded)") == 1
            assert printed.count("🚀 Deployment succeeded: octo-org/octo-repo · production") == 2, (
                "told and traced"
            )
            assert asked(demo, "status")["ok"]
            found.append(sorted(titles(demo)))
            assert demo.end(signal.SIGINT) == 0
            assert nobody_is_left(demo.data_dir)
    assert found[0] == found[1] != []


def polled_nowhere(folder: Path) -> Path:
    """The repository's SSOT, with DigitalOcean's API where nobody listens."""
    shutil.copytree(ROOT / "ssot", folder)
    path = folder / "providers" / "digitalocean.yaml"
    text = path.read_text()
    assert text.count("https://api.digitalocean.com") == 1
    path.write_text(text.replace("https://api.digitalocean.com", "http://127.0.0.1:9"))
    return folder


def test_own_servers_are_used_where_they_are_given(
    data_dir: Path, tmp_path: Path, nats_server: Nats, database: Database
) -> None:
    env = {"DATABASE_URL": database.url("admin"), "GITHUB_WEBHOOK_SECRET": "of my own"}
    env |= {f"NATS_URL_{user.upper()}": nats_server.url(user) for user in ("ingest", "projector", "notifier")}
    env |= {f"NATS_URL_{user.upper()}": nats_server.url(user) for user in ("reader", "operator")}
    env |= {f"DATABASE_URL_{user.upper()}": database.url(user) for user in DATABASE_USERS}
    polled = {"ODOOOPS_SSOT_DIR": str(polled_nowhere(tmp_path / "ssot")), "DIGITALOCEAN_TOKEN": "a-token"}
    polled |= {"NATS_URL_POLLER": nats_server.url("poller")}
    with running(data_dir, env={**env, **polled}) as up:
        assert set(up.pids) == {"ingest", "projector", "notifier", "poller"}
        told = [Path(f"/proc/{pid}/environ").read_text() for pid in up.pids.values()]
        assert sum("a-token" in each for each in told) == 1
        assert "digitalocean" not in up.state["not_polled"]
        assert up.state["secret_files"] == {}
        assert "odooops: plane is closed: set PLANE_WEBHOOK_SECRET\n" in up.said()
        assert "github is closed" not in up.said()
        (door,) = (each for each in asked(up, "status")["checks"] if each["part"] == "plane's door")
        assert (door["state"], "its secret is not set" in door["text"]) == ("warning", True)
        assert is_well(up)
        assert up.end(signal.SIGINT) == 0
    assert not (data_dir / "postgres").exists()
    assert not (data_dir / "nats").exists()


def test_half_given_addresses_are_named(tmp_path: Path) -> None:
    given = clean_env({"NATS_URL_INGEST": "nats://127.0.0.1:1"})
    done = command(["up", "--data-dir", str(tmp_path)], given)
    assert done.returncode == 1
    assert "neither NATS_URL_PROJECTOR nor NATS_URL is set" in done.stderr
    assert "Traceback" not in done.stderr
