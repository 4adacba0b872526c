"""The kilobyte bodies of the growth measurement are understood like the recorded ones."""

from __future__ import annotations

from bench import small
from bench.path import Course, result
from contracts.delivery import Delivery
from services.projector.understand import Understood, understand
from tests.samples import SOURCES

COUNT = 400


def understood(entries: list[Delivery]) -> list[Understood]:
    return [understand(SOURCES, entry) for entry in entries]


def facts(of: list[Understood]) -> set[str]:
    return {statement.event.id for each in of for statement in each.statements}


def test_bodies_are_about_a_kilobyte_and_give_rows_of_many_tables() -> None:
    entries = list(small.deliveries(0, COUNT))
    told = understood(entries)
    assert 500 < sum(len(entry.body) for entry in entries) / COUNT < 1_500
    assert {each.status for each in told} == {"projected"}
    assert len(facts(told)) >= COUNT
    assert {name for each in told for name, _ in each.rows} >= {
        "platform_events",
        "work_items",
        "builds",
        "runs",
    }


def test_news_are_by_turns_about_new_things_and_tell_what_is_new_of_known_ones() -> None:
    before = understood(list(small.deliveries(0, COUNT)))
    news = understood(list(small.news(COUNT, list(range(0, COUNT, 2)), days=1)))
    known = {ref for each in before for ref in each.refs}
    assert len(news) == COUNT
    assert all(known.issuperset(each.refs) for each in news[1::2])
    # Ids that were recorded one after another meet now and then.
    assert sum(known.issuperset(each.refs) for each in news[0::2]) < COUNT // 10
    assert facts(news).isdisjoint(facts(before))


def test_latency_counts_from_when_a_request_was_due() -> None:
    course = Course([b""] * 2, due=[0.0, 1.0], answered={0: 0.5, 1: 1.5}, seen={0: 3.0, 1: 3.0})
    found = result(course, seconds=4.0)
    assert (found["p50_ms"], found["p99_ms"], found["answer_p99_ms"]) == (3000.0, 3000.0, 500.0)
    assert found["rate"] == 2 / 3.0
