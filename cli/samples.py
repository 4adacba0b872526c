"""The demo's deliveries: what samples/deliveries.json lists, brought to the log as each sender brings its own.

Who sends requests is sent for over HTTP, signed by its provider's own rules. What is read by a poll goes the way of
`odooops observe`, and what we say ourselves goes to the broker, as a job or a gate would say it.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from nats.js import JetStreamContext
from pydantic import ValidationError

from cli import catalogue, observe, reach, send
from cli.reach import Servers, Trouble
from contracts import own
from contracts.delivery import Via
from contracts.registry import UnknownEvent, event_type
from contracts.text import NotJson, parse
from providers.port import Source
from providers.registry import sources
from runtime import bus, ssot
from runtime.settings import BadSettings
from runtime.state import State

FOLDER = reach.ROOT / "samples"
LIST = "deliveries.json"
OPERATOR = "operator"
RUN = "{run}"
"""In a delivery's id: what is another one with each run of the demo."""


class SampleRefused(Trouble):
    """a sample was not taken"""


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of samples/deliveries.json: samples/README.md says what each field is."""

    file: str
    source: str
    event: str
    delivery: str = ""
    via: Via = "job"

    def body(self) -> bytes:
        """The bytes to deliver."""
        return (FOLDER / self.file).read_bytes()


@dataclass(frozen=True, slots=True)
class Way:
    """How deliveries came: the source, its way in words, and how the ledger tells them from others of the source."""

    source: str
    words: str
    vias: tuple[Via, ...]


@dataclass(frozen=True, slots=True)
class Sent:
    """How many deliveries went each way, in the order in which they first did; and why a source was left out."""

    counts: Mapping[Way, int]
    left_out: Mapping[str, str]


def load(folder: Path = FOLDER) -> list[Sample]:
    """The samples in the order in which they are sent; raises BadSettings."""
    path = folder / LIST
    try:
        return [Sample(**line) for line in json.loads(path.read_text(encoding="utf-8"))]
    except FileNotFoundError:
        raise BadSettings(
            f"there is no {path}: the demo runs from a working copy of the repository"
        ) from None
    except (ValueError, TypeError) as error:
        raise BadSettings(f"{path}: {error}") from None


async def send_all(servers: Servers, running: State, samples: Sequence[Sample]) -> Sent:
    """Deliver every sample, then what SSOT declares; raises SampleRefused for the first that is not taken."""
    directory = reach.ssot_dir(servers.settings)
    declared = sources(ssot.load(directory))
    left_out = {
        name: why for name in {s.source: None for s in samples} if (why := _shut(name, declared, running))
    }
    run = f"{int(datetime.now(UTC).timestamp() * 1000):x}"
    counts: Counter[Way] = Counter()
    async with reach.broker(servers.nats(OPERATOR), OPERATOR) as client:
        carrier = Carrier(servers, running, client.jetstream(), run)
        for sample in samples:
            if sample.source not in left_out:
                way, count = await carrier.bring(sample, declared[sample.source])
                counts[way] += count
    plan = await catalogue.apply(servers, directory)
    counts[Way(own.SOURCE, "odooops ssot apply", ("ssot",))] += len(plan.events)
    return Sent(counts, left_out)


def _shut(name: str, declared: Mapping[str, Source], running: State) -> str | None:
    """Why nothing can be delivered for a source here."""
    if name not in declared:
        return "SSOT does not declare it"
    missing = running.closed_sources.get(name)
    return None if missing is None else f"closed: set {missing}"


@dataclass(frozen=True, slots=True)
class Carrier:
    """Brings samples by the way of their source, and says which way that was and how many deliveries it made."""

    servers: Servers
    running: State
    js: JetStreamContext
    run: str

    async def bring(self, sample: Sample, source: Source) -> tuple[Way, int]:
        """Deliver one sample; raises SampleRefused."""
        if source.provider.compose is not None:
            await asyncio.to_thread(self._post, sample, source)
            return Way(source.name, f"POST {source.file.endpoint}", ("webhook",)), 1
        if source.provider.items is not None:
            return Way(source.name, "odooops observe", ("cli",)), await self._observe(sample)
        await self._say(sample)
        return Way(source.name, "published by jobs and gates", ("job", "gate")), 1

    def _post(self, sample: Sample, source: Source) -> None:
        parcel = send.Parcel(
            source=source.name,
            event=sample.event,
            delivery=sample.delivery.replace(RUN, self.run) or str(uuid4()),
            body=sample.body(),
        )
        secret = send.secret_for(self.servers, source, None)
        status, answer = send.post(self.running.http_url, parcel, source, secret)
        if status != 200 or answer.get("ok", True) is not True:
            raise SampleRefused(
                f"samples/{sample.file} was refused by {source.file.endpoint} with {status}: "
                f"{answer.get('error', answer)}"
            )

    async def _observe(self, sample: Sample) -> int:
        answers = observe.Answers(
            source=sample.source,
            kind=sample.event,
            scope=sample.event,
            files=[FOLDER / sample.file],
            complete=True,
        )
        return (await observe.store(self.servers, answers)).seen

    async def _say(self, sample: Sample) -> None:
        try:
            event = parse(event_type(sample.event), sample.body())
        except (UnknownEvent, NotJson, ValidationError) as error:
            raise SampleRefused(f"samples/{sample.file} is no {sample.event}: {error}") from None
        await bus.store_delivery(self.js, own.delivery_of(event, sample.via, datetime.now(UTC)))
