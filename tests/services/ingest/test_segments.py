"""The files of the spool: whatever becomes of their bytes, nothing is read that was not written."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.delivery import IDENTITY_CHARS_MAX, Delivery, body_sha256
from runtime import streams
from services.ingest import segments
from services.ingest.segments import FRAME_BYTES, HEAD_BYTES_MAX, Damage, Segment, pack

NOW = datetime(2026, 11, 22, 18, 0, 0, 123456, tzinfo=UTC)
NAME = UUID(int=7)
KEY = NAME.bytes


def delivery(n: int, body: bytes = b"{}") -> Delivery:
    return Delivery(
        source="github",
        identity=f"id-{n}",
        kind="ping",
        via="webhook",
        received_at=NOW,
        body=body,
        body_sha256=body_sha256(body),
        verified_by="GITHUB_WEBHOOK_SECRET",
        headers={"x-github-event": "ping"},
    )


def record(of: Delivery, key: bytes = KEY) -> bytes:
    return pack(of).framed(key) + of.body


def written(*bodies: bytes) -> tuple[list[Delivery], bytes]:
    """Deliveries, and the segment that holds them."""
    made = [delivery(n, body) for n, body in enumerate(bodies)]
    return made, b"".join(map(record, made))


def contents(segment: Segment) -> list[Delivery | Damage]:
    """All parts of a segment."""
    return [part if isinstance(part, Damage) else segment.delivery(part) for part in segment.parts()]


def read(data: bytes) -> list[Delivery | Damage]:
    """What a segment of these bytes holds."""
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(data)
        return contents(Segment(Path(f"{NAME}{segments.SUFFIX}"), file.fileno()))


bodies = st.lists(st.binary(max_size=200) | st.just(KEY * 5), max_size=4)


@given(bodies)
def test_what_is_written_is_read(parts: list[bytes]) -> None:
    made, data = written(*parts)
    assert read(data) == made


@given(bodies.filter(bool), st.data())
def test_what_was_cut_off_is_named_and_what_stands_before_it_is_read(
    parts: list[bytes], draw: st.DataObject
) -> None:
    made, data = written(*parts)
    end = draw.draw(st.integers(0, len(data)))
    found = read(data[:end])
    whole = [each for each in found if isinstance(each, Delivery)]
    assert whole == made[: len(whole)]
    read_bytes = sum(len(record(each)) for each in whole)
    assert found[len(whole) :] == (
        [Damage(read_bytes, end - read_bytes, last=True)] if end > read_bytes else []
    )
    assert end - read_bytes < max(len(record(each)) for each in made)


@given(bodies.filter(bool), st.data())
def test_a_changed_byte_costs_its_own_delivery_and_no_other(parts: list[bytes], draw: st.DataObject) -> None:
    made, data = written(*parts)
    at = draw.draw(st.integers(0, len(data) - 1))
    flipped = data[:at] + bytes([data[at] ^ draw.draw(st.integers(1, 255))]) + data[at + 1 :]
    found = read(flipped)
    (damage,) = [each for each in found if isinstance(each, Damage)]
    assert damage.offset <= at < damage.offset + damage.count
    hit = found.index(damage)
    assert found == [*made[:hit], damage, *made[hit + 1 :]]


@given(bodies.filter(bool), st.binary(min_size=1, max_size=60), st.data())
def test_what_is_behind_bytes_that_nobody_wrote_is_read(
    parts: list[bytes], other: bytes, draw: st.DataObject
) -> None:
    made, _ = written(*parts)
    at = draw.draw(st.integers(0, len(made)))
    data = [record(each) for each in made]
    found = read(b"".join([*data[:at], other, *data[at:]]))
    assert [each for each in found if isinstance(each, Delivery)] == made
    assert len(found) == len(made) + 1


def test_a_record_in_a_body_is_no_record() -> None:
    """A sender writes bodies: what looks like a delivery of somebody else in one must never be read as one."""
    forged = record(delivery(666), UUID(int=8).bytes)
    _, data = written(forged + b"x")
    for torn in (data[:-1], b"?" * FRAME_BYTES + data[FRAME_BYTES:]):
        assert [each for each in read(torn) if isinstance(each, Delivery)] == []


def test_a_key_is_found_wherever_it_stands_between_two_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    made, data = written(b"{}")
    monkeypatch.setattr(segments, "SEARCH_BYTES", 2 * FRAME_BYTES)
    for count in range(1, 4 * FRAME_BYTES):
        assert read(b"?" * count + data) == [Damage(0, count, last=False), *made]


def test_lengths_beyond_what_a_delivery_may_have_are_not_read() -> None:
    _, data = written(b"{}")
    at = len(KEY)
    assert all(isinstance(each, Damage) for each in read(data[:at] + b"\xff\xff\xff\xff" + data[at + 4 :]))


def test_the_longest_headers_that_a_delivery_may_have_are_read() -> None:
    made = Delivery(
        source="s" * 64,
        identity='"' * IDENTITY_CHARS_MAX,
        kind=".".join(["k" * 64] * 8),
        via="webhook",
        received_at=NOW,
        body=b"",
        body_sha256=body_sha256(b""),
        headers={"x": '"' * streams.HEADERS_CHARS_MAX},
    )
    assert len(pack(made).head) < HEAD_BYTES_MAX
    assert read(record(made)) == [made]


def test_a_segment_belongs_to_one_owner_until_it_is_closed(tmp_path: Path) -> None:
    segment = Segment.new(tmp_path)
    assert Segment.adopt(segment.path) is None
    segment.append([pack(delivery(1))])
    segment.close()
    heir = Segment.adopt(segment.path)
    assert heir is not None
    assert contents(heir) == [delivery(1)]
    assert Segment.adopt(segment.path) is None
    heir.remove()
    heir.close()
    assert Segment.adopt(segment.path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("faster", ["has its lock", "has removed it"])
def test_a_new_segment_that_another_process_took_for_a_dead_ones_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faster: str
) -> None:
    heirs: list[Segment] = []
    really_open: Callable[..., int] = os.open

    def opened(path: Path, flags: int, *mode: int) -> int:
        made = really_open(path, flags, *mode)
        if flags & os.O_CREAT and not heirs:
            heir = Segment.adopt(path)
            assert heir is not None
            heirs.append(heir)
            if faster == "has removed it":
                heir.remove()
                heir.close()
        return made

    monkeypatch.setattr(os, "open", opened)
    segment = Segment.new(tmp_path)
    assert heirs[0].path != segment.path
    assert Segment.adopt(segment.path) is None


def test_only_the_owner_may_read_a_segment(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "spool"
    segments.make_folder(folder)
    segment = Segment.new(folder)
    assert os.stat(segment.path).st_mode & 0o077 == 0
    assert os.stat(folder).st_mode & 0o077 == 0


def test_a_disk_that_takes_no_more_leaves_what_was_there(tmp_path: Path) -> None:
    segment = Segment.new(tmp_path)
    segment.append([pack(delivery(1))])
    with file_size_at_most(segment.size + 1000), pytest.raises(OSError, match="File too large"):
        segment.append([pack(delivery(n, b"x" * 600)) for n in (2, 3)])
    assert contents(segment) == [delivery(1)]


@contextmanager
def file_size_at_most(count: int) -> Iterator[None]:
    """Whoever writes more into a file of this process hears that from the system."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_is_held_counts_all_segments_and_what_was_set_aside(tmp_path: Path) -> None:
    first, second = Segment.new(tmp_path), Segment.new(tmp_path)
    first.append([pack(delivery(1))])
    second.append([pack(delivery(2, b"x" * streams.HEADER_CHARS_MAX))])
    assert segments.held_bytes(tmp_path) == first.size + second.size
    kept = first.set_aside()
    assert segments.held_bytes(tmp_path) == kept.stat().st_size + second.size
    assert segments.held_bytes(tmp_path, segments.SUFFIX) == second.size


def test_an_empty_file_holds_nothing() -> None:
    assert read(b"") == []
