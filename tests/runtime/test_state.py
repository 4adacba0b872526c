"""Who owns a data folder, and what commands find there."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runtime import state
from runtime.state import NotRunning, Owned, State

STATE = State(
    pid=1,
    started_at=datetime(2026, 1, 1, tzinfo=UTC),
    http_url="http://127.0.0.1:1",
    nats={"reader": "nats://reader:hidden-1@127.0.0.1:2"},
    database={"reader": "postgresql://reader:hidden-2@127.0.0.1:3/x"},
    ops_host="127.0.0.1",
    ops_ports={"ingest": 4},
    pids={"ingest": 5},
    secret_files={},
    log_dir="logs",
    embedded_nats=True,
    embedded_database=True,
)


def test_a_folder_has_one_owner_at_a_time(tmp_path: Path) -> None:
    with (
        state.owned(tmp_path),
        pytest.raises(Owned, match="another `odooops up` runs on"),
        state.owned(tmp_path),
    ):
        pass
    with state.owned(tmp_path):
        assert True


def test_what_an_owner_wrote_is_found_while_it_lives_and_not_after(tmp_path: Path) -> None:
    with state.owned(tmp_path):
        with pytest.raises(NotRunning, match="still starting"):
            state.read(tmp_path)
        state.write(tmp_path, STATE)
        assert state.read(tmp_path) == STATE
        assert (tmp_path / state.FILE).stat().st_mode & 0o077 == 0
    with pytest.raises(NotRunning, match=r"^no servers run in .*: start them with `odooops up`$"):
        state.read(tmp_path)


def test_a_file_that_a_crash_left_is_not_believed(tmp_path: Path) -> None:
    state.write(tmp_path, STATE)
    with pytest.raises(NotRunning, match="no servers run"):
        state.read(tmp_path)


def test_a_file_of_another_version_is_no_traceback(tmp_path: Path) -> None:
    with state.owned(tmp_path):
        (tmp_path / state.FILE).write_text("{}")
        with pytest.raises(NotRunning, match="written by another version"):
            state.read(tmp_path)


def test_passwords_are_not_shown(tmp_path: Path) -> None:
    assert "hidden" not in repr(STATE)


def test_a_start_waits_for_the_processes_of_a_killed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with state.owned(tmp_path) as descriptor:
        survivor = subprocess.Popen(["sleep", "60"], pass_fds=[descriptor])
    with survivor:
        try:
            monkeypatch.setattr(state, "SURVIVORS_S_MAX", 0.1)
            with pytest.raises(Owned, match="still running"), state.owned(tmp_path):
                pass
        finally:
            survivor.kill()
    with state.owned(tmp_path):
        assert survivor.returncode is not None


def test_the_process_id_file_of_a_crashed_postgres_does_not_stop_a_start(tmp_path: Path) -> None:
    stale = tmp_path / "postgres" / "postmaster.pid"
    stale.parent.mkdir()
    stale.write_text("1\n")
    with state.owned(tmp_path):
        assert not stale.exists()
