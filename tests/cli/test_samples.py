"""The demo's samples: all are taken, all mean something, all providers are there, and together they tell one story."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli import demo, samples, send
from cli.samples import Sample
from contracts import own
from contracts.delivery import Delivery
from contracts.envelope import Event
from contracts.external import ExternalReceived
from contracts.observation import observation
from contracts.registry import event_type
from contracts.text import parse
from providers.port import Ignored, Parcel, Receipt, Secret
from providers.registry import PROVIDERS
from runtime.settings import BadSettings
from tests.providers.driving import NOW, delivery_of, events_of, judge_composed
from tests.samples import SOURCES

ROOT = Path(__file__).parents[2]
README = (samples.FOLDER / "README.md").read_text()
STORY = samples.load()
REQUESTS = [sample for sample in STORY if SOURCES[sample.source].provider.compose is not None]
OTHERS = [sample for sample in STORY if sample not in REQUESTS]


def secret_of(sample: Sample) -> Secret:
    source = SOURCES[sample.source]
    return Secret(source.file.secrets[0], source.provider.new_secret(b"r" * 32).encode())


def receipt(sample: Sample) -> Receipt:
    """What verification finds out about a sample as it is sent."""
    found = judge_composed(
        SOURCES[sample.source], secret_of(sample), sample.body(), sample.event, sample.delivery or "d-1"
    )
    assert isinstance(found, Receipt), f"{sample.file} is refused: {found}"
    return found


def deliveries(sample: Sample) -> list[Delivery]:
    """A sample as the log would hold it."""
    source, body = SOURCES[sample.source], sample.body()
    if (compose := source.provider.compose) is not None:
        made = compose(
            Parcel(body=body, event=sample.event, delivery=sample.delivery or "d-1", at=NOW),
            source,
            secret_of(sample),
        )
        taken = receipt(sample)
        headers = {name.lower(): value for name, value in made.headers.items()}
        return [delivery_of(source, taken.kind, made.body, headers=headers, identity=taken.identity)]
    if (cut := source.provider.items) is not None:
        return [
            observation(
                source=source.name,
                ref=item.ref,
                kind=item.kind,
                body=item.body,
                via="cli",
                run_id="r",
                fetched_at=NOW,
            )
            for item in cut(sample.event, sample.event, body)
        ]
    return [own.delivery_of(parse(event_type(sample.event), body), sample.via, NOW)]


def events(sample: Sample) -> list[Event]:
    """What a sample means; raises Unintelligible where it would be parked."""
    try:
        return [
            event for delivery in deliveries(sample) for event in events_of(SOURCES[sample.source], delivery)
        ]
    except Ignored:
        return []


def test_every_provider_has_a_sample_but_the_one_of_which_we_say_ourselves_what_a_poll_finds() -> None:
    assert set(PROVIDERS) - {"supabase_management"} == {
        SOURCES[sample.source].provider.name for sample in STORY
    }


def test_every_file_is_told_and_lies_in_the_folder_of_its_source() -> None:
    files = {str(path.relative_to(samples.FOLDER)) for path in samples.FOLDER.glob("*/*")}
    assert files == {sample.file for sample in STORY}
    assert [] == [sample.file for sample in STORY if not sample.file.startswith(f"{sample.source}/")]


@pytest.mark.parametrize("sample", STORY, ids=lambda sample: f"{sample.file}-{sample.delivery}")
def test_a_sample_is_taken_and_only_slacks_mean_nothing_yet(sample: Sample) -> None:
    assert bool(events(sample)) == (sample.source != "slack")


def test_the_readme_names_every_file_that_is_no_copy() -> None:
    copied = {
        path.read_bytes() for path in (ROOT / "tests/providers").glob("*/fixtures/**/*") if path.is_file()
    }
    copied |= {path.read_bytes() for path in (ROOT / "contracts/examples").iterdir()}
    named = {sample.file for sample in STORY if f"`{sample.file}`" in README}
    assert named == {sample.file for sample in STORY if sample.body() not in copied}


def test_a_second_run_repeats_its_deliveries_but_for_those_with_another_word_each_time() -> None:
    anew = {sample.source for sample in REQUESTS if samples.RUN in sample.delivery}
    assert {"mailgun"} == anew
    stable = [receipt(sample).identity for sample in REQUESTS if sample.source not in anew]
    assert stable == [receipt(sample).identity for sample in REQUESTS if sample.source not in anew]


def test_one_delivery_is_a_duplicate_and_one_token_has_two_bodies() -> None:
    told = Counter(
        (sample.source, receipt(sample).identity) for sample in REQUESTS if sample.source != "supabase"
    )
    twice = {source for (source, _), count in told.items() if count > 1}
    assert {"plane", "mailgun"} == twice
    plane = [sample.body() for sample in REQUESTS if sample.file == "plane/01-issue.created.json"]
    assert (2, 1) == (len(plane), len(set(plane)))
    first, _, conflict = (sample for sample in REQUESTS if sample.source == "mailgun")
    assert (first.delivery, True) == (conflict.delivery, first.body() != conflict.body())


def test_the_story_is_about_one_commit() -> None:
    about = {
        sample.file
        for sample in STORY
        for event in events(sample)
        if (event.correlation or "").startswith(demo.COMMIT)
    }
    assert {"github", "vercel", "odooops"} == {file.partition("/")[0] for file in about}
    assert 12 <= len(about)


def test_github_and_vercel_report_one_deployment() -> None:
    told = [event for sample in STORY for event in events(sample)]
    same = Counter(
        (event.source, getattr(event, "same_as", None)) for event in told if getattr(event, "same_as", None)
    )
    assert 1 == len({link for source, link in same if source == "github"} & {link for _, link in same})


def test_no_time_of_the_story_lies_ahead() -> None:
    assert [] == [
        sample.file
        for sample in STORY
        for event in events(sample)
        if not isinstance(event, ExternalReceived) and event.occurred_at > NOW
    ]


@pytest.mark.parametrize(
    "text", ["[", '[{"file": "a"}]', '[{"file": "a", "source": "b", "event": "c", "x": 1}]']
)
def test_a_list_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / samples.LIST).write_text(text)
    with pytest.raises(BadSettings, match=samples.LIST):
        samples.load(tmp_path)


@dataclass
class Runs:
    """As much of a running `odooops up` as sending needs."""

    http_url: str = "http://127.0.0.1:1"


def test_a_sample_that_is_refused_is_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> tuple[int, dict[str, Any]]:
        return 401, {"ok": False, "error": "The signature does not fit the body."}

    monkeypatch.setattr(send, "post", refused)
    monkeypatch.setattr(send, "secret_for", lambda *_: Secret("S", b"s"))
    carrier = samples.Carrier(servers=None, running=Runs(), js=None, run="r")  # type: ignore[arg-type]  # stand-ins
    [sample] = (each for each in STORY if each.file == "plane/02-issue.updated.json")
    with pytest.raises(samples.SampleRefused) as said:
        asyncio.run(carrier.bring(sample, SOURCES["plane"]))
    assert str(said.value) == (
        "samples/plane/02-issue.updated.json was refused by /webhooks/plane with 401: "
        "The signature does not fit the body."
    )
