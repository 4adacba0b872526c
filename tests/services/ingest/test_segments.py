"""The files of the spool: whatever becomes of their bytes, nothing is read that was not written."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.delivery import Delivery, body_sha256
from runtime import streams
from services.ingest import segments
from services.ingest.segments import FRAME_BYTES, MAGIC, Damage, Segment

NOW = datetime(2026, 11, 22, 18, 0, 0, 123456, tzinfo=UTC)


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


def written(*bodies: bytes) -> tuple[list[Delivery], bytes]:
    """Deliveries, and the segment that holds them."""
    made = [delivery(n, body) for n, body in enumerate(bodies)]
    return made, b"".join(map(segments.record, made))


def read(data: bytes) -> list[Delivery | Damage]:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        return list(segments.read(file))


bodies = st.lists(st.binary(max_size=200) | st.just(MAGIC * 20), max_size=4)


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
    read_bytes = sum(len(segments.record(each)) for each in whole)
    assert found[len(whole) :] == (
        [Damage(read_bytes, end - read_bytes, last=True)] if end > read_bytes else []
    )
    assert end - read_bytes < max(len(segments.record(each)) for each in made)


@given(bodies.filter(bool), st.data())
def test_a_changed_byte_is_never_read_as_a_delivery(parts: list[bytes], draw: st.DataObject) -> None:
    made, data = written(*parts)
    at = draw.draw(st.integers(0, len(data) - 1))
    flipped = data[:at] + bytes([data[at] ^ draw.draw(st.integers(1, 255))]) + data[at + 1 :]
    found = read(flipped)
    assert [each for each in found if isinstance(each, Delivery) and each not in made] == []
    damages = [each for each in found if isinstance(each, Damage)]
    assert len(damages) == 1
    assert damages[0].offset <= at < damages[0].offset + damages[0].count


def test_a_changed_body_costs_no_other_delivery() -> None:
    made, data = written(b'{"a": 1}', b'{"b": 2}', b'{"c": 3}')
    found = read(data.replace(b'{"b": 2}', b'{"b": 3}'))
    assert [each for each in found if isinstance(each, Delivery)] == [made[0], made[2]]


def test_a_record_in_a_body_is_no_record() -> None:
    """A sender writes bodies: what looks like a delivery of somebody else in one must never be read as one."""
    forged = segments.record(delivery(666))
    _, data = written(forged + b"x")
    torn = data[:-1]
    assert [each for each in read(torn) if isinstance(each, Delivery)] == []
    assert [each for each in read(b"?" + data) if isinstance(each, Delivery)] == []


def test_lengths_beyond_what_a_delivery_may_have_are_not_read() -> None:
    assert FRAME_BYTES < 64
    _, data = written(b"{}")
    assert all(isinstance(each, Damage) for each in read(data[:8] + b"\xff\xff\xff\xff" + data[12:]))


def test_a_segment_belongs_to_one_owner_until_it_is_closed(tmp_path: Path) -> None:
    segment = Segment.new(tmp_path)
    assert Segment.adopt(segment.path) is None
    segment.append([segments.record(delivery(1))])
    segment.close()
    heir = Segment.adopt(segment.path)
    assert heir is not None
    with heir.reader() as file:
        assert list(segments.read(file)) == [delivery(1)]
    assert Segment.adopt(segment.path) is None
    heir.remove()
    heir.close()
    assert Segment.adopt(segment.path) is None
    assert list(tmp_path.iterdir()) == []


def test_only_the_owner_may_read_a_segment(tmp_path: Path) -> None:
    segment = Segment.new(tmp_path)
    assert os.stat(segment.path).st_mode & 0o077 == 0
    segment.remove()


def test_a_disk_that_takes_no_more_leaves_what_was_there(tmp_path: Path) -> None:
    segment = Segment.new(tmp_path)
    segment.append([segments.record(delivery(1))])
    with file_size_at_most(segment.size + 1000), pytest.raises(OSError, match="File too large"):
        segment.append([segments.record(delivery(n, b"x" * 600)) for n in (2, 3)])
    segment.append([segments.record(delivery(4))])
    with segment.reader() as file:
        assert list(segments.read(file)) == [delivery(1), delivery(4)]
    segment.remove()


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
    first.append([segments.record(delivery(1))])
    second.append([segments.record(delivery(2, b"x" * streams.HEADER_CHARS_MAX))])
    assert segments.held_bytes(tmp_path) == first.size + second.size
    kept = first.set_aside()
    assert segments.held_bytes(tmp_path) == kept.stat().st_size + second.size
    second.remove()


def test_an_empty_file_holds_nothing() -> None:
    assert read(b"") == []
