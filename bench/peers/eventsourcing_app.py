"""eventsourcing 9.5.6 (PyPI), event-sourced applications on Postgres: append, then project the same events.

Follows https://eventsourcing.readthedocs.io/en/stable/topics/projection.html (a `Projection` run by a
`ProjectionRunner`, the view a `PostgresTrackingRecorder`; its transaction as in their example `PostgresFtsView`).
Each delivery is an aggregate of one event that holds the body. Append: one `save`, one durable transaction each, one at
a time, for its table is locked by each. Projection: from the filled notification log, each event in order, understood
by our code, ledger, rows and position in one transaction.

It leaves out: merging by version, conflicts of bodies, the recognition of a delivery that comes twice, events for
subscribers elsewhere (its notification log is one for those that read its database), HTTP.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from eventsourcing.application import Application
from eventsourcing.dispatch import singledispatchmethod
from eventsourcing.domain import Aggregate, event
from eventsourcing.persistence import Tracking, TrackingRecorder
from eventsourcing.postgres import PostgresTrackingRecorder
from eventsourcing.projection import Projection, ProjectionRunner

from bench import corpus
from bench.peers import rows
from bench.peers.said import say
from contracts.delivery import Delivery
from services.projector.understand import Understood, understand
from tests.samples import SOURCES

DRAIN_S_MAX = 60.0
UPSERTS = rows.upserts("%s")


class Taken(Aggregate):
    """A delivery; it is taken once, and nothing happens to it afterwards."""

    class Received(Aggregate.Created):
        """It came, with all that there is to know of it."""

        identity: str
        kind: str
        seq: int
        body: str
        body_sha256: str

    @event(Received)
    def __init__(self, identity: str, kind: str, seq: int, body: str, body_sha256: str) -> None:
        self.identity = identity
        self.kind = kind
        self.seq = seq
        self.body = body
        self.body_sha256 = body_sha256


class Log(Application[UUID]):
    """Deliveries, in the order in which they were taken."""


class Tables(TrackingRecorder, ABC):
    """What the view can be told."""

    @abstractmethod
    def fold(self, understood: Understood, tracking: Tracking) -> None:
        """Write ledger and rows, and where in the log that was."""


class PostgresTables(PostgresTrackingRecorder, Tables):
    """The tables of `ops`."""

    def fold(self, understood: Understood, tracking: Tracking) -> None:
        with self.datastore.transaction(commit=True) as cursor:
            self._insert_tracking(cursor, tracking)
            for model, row in rows.rows_of(understood):
                cursor.execute(UPSERTS[model.name], rows.values(model, row), prepare=True)


class Folding(Projection[Tables]):
    """Deliveries into tables; notes when it began and when it last ended."""

    began = ended = 0.0

    @singledispatchmethod
    def process_event(self, domain_event: Any, tracking: Tracking) -> None:
        raise TypeError(f"{domain_event} is no delivery")

    @process_event.register
    def _(self, domain_event: Taken.Received, tracking: Tracking) -> None:
        Folding.began = Folding.began or time.perf_counter()
        taken = domain_event
        delivery = Delivery(
            source="github",
            identity=taken.identity,
            kind=taken.kind,
            via="webhook",
            received_at=corpus.RECEIVED_AT,
            body=taken.body.encode(),
            body_sha256=taken.body_sha256,
            headers={"x-github-event": taken.kind, "content-type": "application/json"},
            seq=taken.seq,
        )
        self.view.fold(understand(SOURCES, delivery), tracking)
        Folding.ended = time.perf_counter()


async def drain(url: str, count: int) -> None:
    """Append `count` deliveries one by one, then project them."""
    address = urlsplit(url)
    env = {
        "PERSISTENCE_MODULE": "eventsourcing.postgres",
        "POSTGRES_DBNAME": address.path[1:],
        "POSTGRES_HOST": str(address.hostname),
        "POSTGRES_PORT": str(address.port),
        "POSTGRES_USER": str(address.username),
        "POSTGRES_PASSWORD": str(address.password),
        "POSTGRES_SCHEMA": "peer",
    }
    app = Log(env)
    taken = [Taken(d.identity, d.kind, d.seq, d.body.decode(), d.body_sha256) for d in rows.deliveries(count)]
    started = time.perf_counter()
    for each in taken:
        app.save(each)
    appended = time.perf_counter() - started
    app.close()
    with ProjectionRunner(
        application_class=Log, projection_class=Folding, view_class=PostgresTables, env=env
    ) as runner:
        runner.wait(count, timeout=DRAIN_S_MAX)
    say(append=count / appended, rows=count / (Folding.ended - Folding.began))
