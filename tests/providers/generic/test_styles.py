"""Any sender without code: real styles of proof, each with a genuine request, tampered ones and a missing proof."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from providers.generic import PROVIDER
from providers.port import Composed, Parcel, Receipt, Secret, Source
from tests.providers.driving import NOW, RECEIPT_ID, Outcome, delivery_of, events_of, judge, source_of
from tests.providers.generic.styles import KEY, STYLES, Style

SECRET = Secret("A_SECRET", KEY)
each_style = pytest.mark.parametrize("style", STYLES, ids=lambda style: str(style.name))
each_signed = pytest.mark.parametrize(
    "style", [style for style in STYLES if style.proves_the_body], ids=lambda style: str(style.name)
)
each_shown = pytest.mark.parametrize(
    "style", [style for style in STYLES if not style.proves_the_body], ids=lambda style: str(style.name)
)
each_timed = pytest.mark.parametrize(
    "style",
    [style for style in STYLES if style.verify.get("hmac", {}).get("timestamp")],
    ids=lambda style: str(style.name),
)


def source(style: Style) -> Source:
    return source_of(PROVIDER, style.name, style.all_options, secrets=[SECRET.name])


def outcome(
    style: Style,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    at: datetime = NOW,
    held: Sequence[Secret] = (SECRET,),
) -> Outcome:
    """How a request is judged that was made for the style's own body."""
    return judge(
        source(style),
        style.headers(style.body) if headers is None else headers,
        style.body if body is None else body,
        held,
        at=at,
        query=style.query(style.body),
    )


def test_there_are_at_least_a_dozen_styles() -> None:
    assert 12 <= len({style.name for style in STYLES}) == len(STYLES)


@each_style
def test_a_genuine_request_is_taken(style: Style) -> None:
    assert Receipt(identity=style.identity, kind=style.kind, verified_by=SECRET.name) == outcome(style)


@each_style
def test_a_genuine_request_is_taken_while_the_secret_changes(style: Style) -> None:
    found = outcome(style, held=[Secret("NEW", b"the next one"), Secret("OLD", KEY)])
    assert isinstance(found, Receipt) and "OLD" == found.verified_by


@each_style
def test_another_secret_or_an_empty_one_opens_nothing(style: Style) -> None:
    for value in (b"another", b""):
        found = outcome(style, held=[Secret("OTHER", value)])
        assert isinstance(found, tuple) and 401 == found[0]


@each_signed
def test_a_tampered_body_is_refused(style: Style) -> None:
    for tampered in (style.body + b" ", style.body[1:], style.body.swapcase(), b""):
        assert (401, "bad_signature") == outcome(style, tampered)


@each_shown
def test_a_tampered_token_is_refused(style: Style) -> None:
    wrong = {name: value[:-1] + "!" for name, value in style.headers(style.body).items()}
    found = judge(source(style), wrong, style.body, [SECRET], query="token=wrong")
    assert (401, "bad_token") == found


@each_style
def test_without_its_proof_a_request_is_refused(style: Style) -> None:
    found = judge(source(style), {}, style.body, [SECRET])
    assert isinstance(found, tuple) and (401, True) == (found[0], found[1].startswith("missing_"))


@each_timed
def test_a_recorded_request_is_refused_later_and_so_is_another_time(style: Style) -> None:
    assert (401, "stale_timestamp") == outcome(style, at=NOW + timedelta(seconds=301))
    moved = {
        name: value.replace("12:00:00", "12:00:01").replace("1793534400", "1793534401")
        for name, value in style.headers(style.body).items()
    }
    assert moved != style.headers(style.body)
    assert (401, "bad_signature") == outcome(style, headers=moved)


@each_style
def test_what_odooops_sends_in_its_name_is_taken(style: Style) -> None:
    assert PROVIDER.compose is not None
    parcel = Parcel(body=style.body, event="some.event", delivery="d-9", at=NOW)
    made: Composed = PROVIDER.compose(parcel, source(style), SECRET)
    headers = {name.lower(): value for name, value in made.headers.items()}
    found = judge(source(style), headers, made.body, [SECRET], query=made.query)
    assert isinstance(found, Receipt)
    if "header" in style.options.get("identity", {}):
        assert "d-9" == found.identity


@each_style
def test_it_means_one_event_of_that_kind(style: Style) -> None:
    delivered = delivery_of(source(style), style.kind, style.body, identity=style.identity)
    [event] = events_of(source(style), delivered)
    assert event.type == "external.received"
    assert event.ref.startswith(f"{style.name}:")
    assert event.fact == style.identity
    assert (event.model_dump()["external_id"] is None) == (style.identity == RECEIPT_ID)
    if "time" in style.options:
        assert NOW == event.occurred_at


SLACK = (
    "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
    "&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
    "&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    "&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)


@pytest.mark.parametrize(
    ("name", "secret", "headers", "body", "at"),
    [
        (
            "github",
            KEY,
            {
                "x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
                "x-github-delivery": "d-1",
            },
            "Hello, World!",
            NOW,
        ),
        (
            "slack_like",
            b"8f742231b10e8888abcd99yyyzzz85a5",
            {
                "x-slack-request-timestamp": "1531420618",
                "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
            },
            SLACK,
            datetime.fromtimestamp(1531420618, UTC),
        ),
    ],
    ids=["github", "slack"],
)
def test_the_example_that_a_sender_publishes_is_verified(
    name: str, secret: bytes, headers: dict[str, str], body: str, at: datetime
) -> None:
    [style] = [style for style in STYLES if style.name == name]
    found = judge(source(style), headers, body.encode(), [Secret("PUBLISHED", secret)], at=at)
    assert isinstance(found, Receipt) and "PUBLISHED" == found.verified_by
