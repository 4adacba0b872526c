"""Everything that we have of Slack."""

from __future__ import annotations

from pathlib import Path

from providers.port import Secret
from providers.slack import PROVIDER
from providers.slack.body import content_of
from tests.providers.case import Case, Sample
from tests.providers.driving import source_of

FIXTURES = Path(__file__).with_name("fixtures")
BODIES = [
    FIXTURES / "slash-command.docs.body.txt",
    *sorted(FIXTURES.glob("interactivity/*.body.txt")),
    *sorted(FIXTURES.glob("events/*.json")),
]

CASE = Case(
    source=source_of(PROVIDER),
    secret=Secret("SLACK_SIGNING_SECRET", b"8f742231b10e8888abcd99yyyzzz85a5"),
    samples=[
        Sample(name=path.name, body=path.read_bytes(), event=content_of(path.read_bytes()).kind)
        for path in BODIES
    ],
)
