"""Holding off the search for cycles: for a while only, and without forgetting what there is to find."""

from __future__ import annotations

import gc

import pytest

from runtime.garbage import MADE_COUNT, seldom_collected


def test_searches_are_seldom_inside_and_as_before_after() -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()

    with pytest.raises(KeyError), seldom_collected():
        assert gc.get_threshold()[0] == MADE_COUNT
        assert gc.get_freeze_count() > frozen
        raise KeyError

    assert before == gc.get_threshold()
    assert gc.get_freeze_count() == 0
