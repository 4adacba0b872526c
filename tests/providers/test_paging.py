from __future__ import annotations

import json
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from typing import Any

import pytest

from providers.paging import by_cursor, by_link, by_offset, by_page_number, each_page, pages
from providers.polling import Ask, Failed, Reply, Step

AT = datetime(2026, 7, 1, tzinfo=UTC)
FIRST = Ask(path="/things", params={"state": "all"}, etag='"e"', also=frozenset({404}))


def reply(said: Any, **headers: str) -> Reply:
    return Reply(status=200, headers=headers, body=json.dumps(said).encode(), asked_at=AT, fetched_at=AT)


def drive(steps: Generator[Step, Any, Any], answer: Callable[[Ask], Reply]) -> tuple[list[Ask], Any]:
    """What was asked, and what the generator returned."""
    asked: list[Ask] = []
    try:
        step = next(steps)
        while True:
            assert isinstance(step, Ask)
            asked.append(step)
            step = steps.send(answer(step))
    except StopIteration as end:
        return asked, end.value


def test_by_link_follows_next_and_keeps_neither_parameters_nor_etag():
    second = "https://api.example/things?a=1,2&page=2"
    link = f'<https://api.example/x>; rel="prev first", <{second}>; title="a, b"; REL="Last Next"'
    asked, shown = drive(pages(FIRST, by_link), lambda ask: reply(1, link=link) if ask is FIRST else reply(2))
    assert [each.path for each in asked] == ["/things", second]
    assert asked[1] == Ask(path=second, also=frozenset({404}))
    assert [each.json() for each in shown] == [1, 2]


@pytest.mark.parametrize(
    "link",
    [
        "",
        '<https://api.example/x>; rel="prev"',
        "<https://api.example/x>",
        "rel=next",
        # Only the first rel of a link counts.
        '<https://api.example/x>; rel="prev"; rel="next"',
    ],
)
def test_by_link_ends_where_nothing_is_next(link):
    assert by_link(FIRST, reply([], link=link), 1) is None


def test_by_link_refuses_a_next_page_that_is_no_address():
    with pytest.raises(Failed) as failed:
        by_link(FIRST, reply([], link='</things?page=2>; rel="next"'), 1)
    assert failed.value.reason == "bad_link"


def numbered(ask: Ask) -> Reply:
    last = ask.params.get("page") == "3"
    return reply(
        {"things": [ask.params.get("page")], "links": {} if last else {"pages": {"next": "https://x"}}}
    )


def test_by_page_number_ends_where_no_page_is_next():
    asked, _ = drive(pages(FIRST, by_page_number(100)), numbered)
    assert [dict(each.params) for each in asked] == [
        {"state": "all"},
        {"state": "all", "page": "2", "per_page": "100"},
        {"state": "all", "page": "3", "per_page": "100"},
    ]


def test_by_page_number_ends_with_a_list_that_is_not_full():
    asked, _ = drive(
        pages(FIRST, by_page_number(2)), lambda ask: reply([1] if "page" in ask.params else [1, 2])
    )
    assert len(asked) == 2


def test_by_cursor_goes_on_as_long_as_one_is_named():
    following = by_cursor("until", lambda page: page.json()["next"])
    asked, _ = drive(
        pages(FIRST, following), lambda ask: reply({"next": None if ask.params.get("until") else "c1"})
    )
    assert [each.params.get("until") for each in asked] == [None, "c1"]


def test_by_offset_ends_with_a_page_that_is_not_full():
    rows = list(range(5))

    def answer(ask: Ask) -> Reply:
        at = int(ask.params.get("offset", "0"))
        return reply(rows[at : at + 2])

    asked, shown = drive(pages(FIRST, by_offset(2)), answer)
    assert [each.params.get("offset") for each in asked] == [None, "2", "4"]
    assert [row for page in shown for row in page.json()] == rows


def test_by_offset_refuses_an_answer_that_is_no_page():
    with pytest.raises(Failed) as failed:
        drive(pages(FIRST, by_offset(2)), lambda ask: reply({"things": []}))
    assert failed.value.reason == "not_a_page"


def test_a_page_that_repeats_the_one_before_it_fails_and_is_not_handed_over():
    handed: list[Reply] = []

    def handle(page: Reply) -> Generator[Step, Any, bool]:
        handed.append(page)
        return True
        yield

    following = by_cursor("after", lambda page: f"c{len(handed)}")
    with pytest.raises(Failed) as failed:
        drive(each_page(FIRST, following, handle), lambda ask: reply(["same"]))
    assert failed.value.reason == "repeated_page"
    assert len(handed) == 1


def test_pages_that_lead_in_a_circle_fail():
    asked: list[Ask] = []

    def answer(ask: Ask) -> Reply:
        asked.append(ask)
        return reply([len(asked)], next="b" if ask.params.get("after") == "a" else "a")

    with pytest.raises(Failed) as failed:
        drive(pages(FIRST, by_cursor("after", lambda page: page.headers["next"])), answer)
    assert failed.value.reason == "endless_pages"
    assert [each.params.get("after") for each in asked] == [None, "a", "b"]


@pytest.mark.parametrize("last, fails", [(3, False), (4, True)])
def test_pages_are_bounded(last, fails):
    asked: list[Ask] = []

    def answer(ask: Ask) -> Reply:
        asked.append(ask)
        return reply([len(asked)])

    following = by_cursor("after", lambda page: str(len(asked)) if len(asked) < last else None)
    reading = pages(FIRST, following, pages_max=3)
    if fails:
        with pytest.raises(Failed) as failed:
            drive(reading, answer)
        assert failed.value.reason == "endless_pages"
    else:
        drive(reading, answer)
    assert len(asked) == 3


@pytest.mark.parametrize("wanted, ended", [(1, False), (9, True)])
def test_each_page_says_whether_the_end_was_reached(wanted: int, ended: bool) -> None:
    handed: list[Reply] = []

    def handle(page: Reply) -> Generator[Step, Any, bool]:
        handed.append(page)
        return len(handed) < wanted
        yield

    following = by_cursor("after", lambda page: str(len(handed)) if len(handed) < 2 else None)
    _, whole = drive(each_page(FIRST, following, handle), lambda ask: reply([ask.params.get("after")]))
    assert whole is ended
    assert len(handed) == min(wanted, 2)
