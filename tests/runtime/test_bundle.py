"""`runtime.bundle`: a file that is made whole or not at all, and read with nothing taken on trust but its own size."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tarfile
from io import BytesIO
from pathlib import Path
from unittest import mock

import pytest

from runtime import bundle
from runtime.bundle import BadBundle

PARTS = {"a": b"x" * 1_000, "b/c": b"", "d": bytes(512), "e": os.urandom(bundle.PIECE_BYTES + 1)}


def write(path: Path, more: object = None) -> None:
    with bundle.writing(path) as into:
        for name, data in PARTS.items():
            with into.part(name) as add:
                add(data[:1])
                add(data[1:])
        into.finish({"said": more})


def test_what_was_written_is_read_and_tar_lists_it(tmp_path: Path) -> None:
    file = tmp_path / "b.tar"
    write(file, "é\x00")
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)
    with bundle.reading(file) as found:
        found.check()
        assert PARTS == {name: b"".join(found.pieces(name)) for name in found.manifest["parts"]}
        assert "é\x00" == found.manifest["said"]
        with pytest.raises(BadBundle, match="other is missing"):
            next(found.pieces("other"))
    with tarfile.open(file) as tar:
        assert [*PARTS, bundle.MANIFEST] == tar.getnames()


@pytest.mark.parametrize("size", [0, 8**11 - 1, 8**11, 2**45])
def test_a_part_may_be_larger_than_eight_gigabytes(size: int) -> None:
    info = tarfile.TarInfo.frombuf(
        bundle._header("streams/OBJ_DELIVERY_BODIES.tar.s2", size), "utf-8", "strict"
    )
    assert size == info.size


def test_any_changed_byte_of_a_part_and_any_cut_is_named(tmp_path: Path) -> None:
    file = tmp_path / "b.tar"
    write(file)
    data = file.read_bytes()
    with tarfile.open(file) as tar:
        places = {each.name: (each.offset, each.offset_data, each.size) for each in tar}

    def refused(damaged: bytes) -> str:
        file.write_bytes(damaged)
        with pytest.raises(BadBundle) as error, bundle.reading(file) as found:
            found.check()
        return str(error.value)

    def flipped(at: int) -> bytes:
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    for name, (header, start, size) in places.items():
        for at in {start, start + size - 1} if size else ():
            assert f"{name} is not what was written" in refused(flipped(at))
        assert "manifest.json" in refused(
            flipped(header)
        )  # where a header cannot be read, what follows is not found
        assert "manifest.json" in refused(data[: start + size // 2])
    assert "has no manifest.json" in refused(b"")
    assert "is cut off within manifest.json" in refused(data[: places[bundle.MANIFEST][1] + 1])


def _member(name: str, **more: object) -> bytes:
    info = tarfile.TarInfo(name)
    for setting, value in more.items():
        setattr(info, setting, value)
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "hostile",
    [
        _member("link", type=tarfile.SYMTYPE, linkname="link"),
        _member("link", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
        _member("pipe", type=tarfile.FIFOTYPE),
        _member("long", type=tarfile.GNUTYPE_LONGNAME, size=2**40),
        _member("pax", type=tarfile.XHDTYPE, size=2**40),
        _member("holes", type=tarfile.GNUTYPE_SPARSE, size=2**62),
        _member("back", size=-(2**40)),
        _member("a"),
        b"".join(_member(f"{n}") for n in range(bundle.PARTS_COUNT_MAX)),
    ],
    ids=["itself", "hard", "pipe", "long name", "pax", "holes", "negative", "twice", "many"],
)
def test_a_member_that_no_backup_has_is_refused_before_anything_is_read_of_it(
    hostile: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "b.tar"
    write(file)
    file.write_bytes(file.read_bytes().replace(_blocks(file), hostile + _blocks(file), 1))
    with pytest.raises(BadBundle, match="is no backup: none has"), bundle.reading(file):
        pass


def _blocks(file: Path) -> bytes:
    """The header of the manifest."""
    with tarfile.open(file) as tar:
        at = tar.getmember(bundle.MANIFEST).offset
    return file.read_bytes()[at : at + tarfile.BLOCKSIZE]


def test_a_size_beyond_the_file_and_names_that_lead_elsewhere_do_nothing(tmp_path: Path) -> None:
    file = tmp_path / "b.tar"
    file.write_bytes(_member("huge", size=2**62) + b"x" * tarfile.BLOCKSIZE)
    with pytest.raises(BadBundle, match=r"has no manifest\.json"), bundle.reading(file):
        pass
    name = f"..{tmp_path}/elsewhere"
    with bundle.writing(tmp_path / "path.tar") as into:
        with into.part(name) as add:
            add(b"x")
        into.finish({})
    with bundle.reading(tmp_path / "path.tar") as found:
        found.check()
        assert b"x" == b"".join(found.pieces(name))
    assert {"b.tar", "path.tar"} == {each.name for each in tmp_path.iterdir()}


@pytest.mark.parametrize("said", ["[]", "{", '{"format":2}', "[" * 100_000])
def test_a_manifest_that_is_none_is_refused(said: str, tmp_path: Path) -> None:
    file = tmp_path / "b.tar"
    with bundle.writing(file) as into:
        into.finish({})
    made = hashlib.sha256(said.encode()).hexdigest()
    whole = f'{{"sha256":"{made}","manifest":{said}}}'.encode()
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        info = tarfile.TarInfo(bundle.MANIFEST)
        info.size = len(whole)
        tar.addfile(info, BytesIO(whole))
    file.write_bytes(buffer.getvalue())
    with pytest.raises(BadBundle, match="this version reads 1"), bundle.reading(file):
        pass


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    file = tmp_path / "b.tar"
    with bundle.writing(file) as first:
        with pytest.raises(FileExistsError, match="another run is writing it"), bundle.writing(file):
            pass
        first.finish({"by": "the first"})
    with bundle.reading(file) as found:
        assert "the first" == found.manifest["by"]
    assert [file] == list(tmp_path.iterdir())


def test_a_file_that_came_meanwhile_is_not_written_over(tmp_path: Path) -> None:
    file = tmp_path / "b.tar"
    with pytest.raises(FileExistsError, match="is there already"), bundle.writing(file) as into:
        into.finish({})
        file.write_bytes(b"another's")
    assert b"another's" == file.read_bytes()
    assert [file] == list(tmp_path.iterdir())


def test_what_killed_runs_left_is_removed_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    left, others = tmp_path / "odooops-1.tar.part", tmp_path / "mine.tar.part"
    left.write_bytes(b"x")
    others.write_bytes(b"x")
    with bundle.writing(tmp_path / "odooops-2.tar") as into:
        bundle.remove_left_behind(tmp_path, "odooops-*.tar")
        into.finish({})
    assert {"odooops-2.tar", "mine.tar.part"} == {each.name for each in tmp_path.iterdir()}


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(os, "fsync", mock.Mock(side_effect=full))
    with pytest.raises(OSError, match=r"b\.tar") as error:
        write(tmp_path / "b.tar")
    assert errno.ENOSPC == error.value.errno
    assert [] == list(tmp_path.iterdir())


def test_a_link_that_somebody_left_leads_nowhere(tmp_path: Path) -> None:
    victim, file = tmp_path / "victim", tmp_path / "b.tar"
    victim.write_bytes(b"mine")
    (tmp_path / "b.tar.part").hardlink_to(victim)
    write(file)
    (tmp_path / "c.tar.part").symlink_to(victim)
    with pytest.raises(OSError, match=r"c\.tar\.part"):
        write(tmp_path / "c.tar")
    assert b"mine" == victim.read_bytes()
