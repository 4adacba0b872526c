"""The demo shows what became of its samples once everybody is done with them."""

from __future__ import annotations

import pytest
from nats.js.api import ConsumerConfig, ConsumerInfo, SequenceInfo

from cli.demo import _undone
from tests.samples import RECEIVED_AT


@pytest.mark.parametrize(
    "pending, in_hand, delivered, undone",
    [
        pytest.param(0, 0, 7, 0, id="done"),
        pytest.param(2, 1, 4, 3, id="waits and is in hand"),
        pytest.param(0, 1, 7, 1, id="is in hand"),
        pytest.param(0, 0, 6, 1, id="stored and not counted yet"),
        pytest.param(0, 0, None, 1, id="nothing known"),
    ],
)
def test_who_has_not_seen_the_last_message_is_not_done(
    pending: int, in_hand: int, delivered: int | None, undone: int
) -> None:
    info = ConsumerInfo(
        name="notifier",
        stream_name="EVENTS",
        created=RECEIVED_AT,
        config=ConsumerConfig(),
        num_pending=pending,
        num_ack_pending=in_hand,
        delivered=None if delivered is None else SequenceInfo(delivered, delivered),
    )
    assert undone == _undone(info, 7)
