"""How much room is enough."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from runtime.audit import disk
from runtime.audit.disk import GIB
from runtime.streams import SPOOL_BYTES_MAX


@pytest.mark.parametrize(
    ("free", "level"), [(6 * GIB, None), (4 * GIB, "warning"), (GIB, "warning"), (GIB - 1, "error")]
)
def test_the_data_folder_needs_room(free: int, level: str | None) -> None:
    found = disk.of_data_folder(Path("data"), free)
    assert [each.level for each in found] == ([] if level is None else [level])


@pytest.mark.parametrize(
    ("used", "limit", "level"),
    [(79, 100, None), (80, 100, "warning"), (95, 100, "error"), (10, 0, None), (10, -1, None)],
)
def test_a_brokers_disk_is_judged_by_its_own_limit(used: int, limit: int, level: str | None) -> None:
    found = disk.of_storage("disk of nats-1", used, limit)
    assert [each.level for each in found] == ([] if level is None else [level])


@pytest.mark.parametrize(("free", "count"), [(SPOOL_BYTES_MAX, 0), (SPOOL_BYTES_MAX - 4096, 1)])
def test_a_spool_needs_the_room_that_it_may_take(
    free: int, count: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    space = SimpleNamespace(f_bavail=free // 4096, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda folder: space)
    monkeypatch.setattr(disk, "SPOOL_BYTES_MAX", SPOOL_BYTES_MAX // 4096 * 4096)
    assert len(disk.of_spool(tmp_path)) == count


def test_a_spool_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    (missing,) = disk.of_spool(tmp_path / "none")
    assert missing.level == "error"
    assert "No such file" in missing.says
