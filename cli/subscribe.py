"""`odooops subscribe`: a durable consumer of EVENTS for a subscriber of the operator's own, and its login."""

from __future__ import annotations

import re
from collections.abc import Sequence

import nats.errors
from nats.js.errors import APIError

from cli import reach, terminal
from cli.reach import Servers, Trouble
from contracts.envelope import SUBJECT_ROOT
from runtime import embedded, streams
from runtime.permissions import USERS, subscriber
from runtime.settings import BadSettings

OPERATOR = "operator"
_SUBJECT = re.compile(rf"{SUBJECT_ROOT}(\.[a-z0-9_-]+|\.\*)*(\.>)?")


async def run(servers: Servers, name: str, subjects: Sequence[str]) -> None:
    """Make the consumer, or change what it is given, and say how to log in as `name`."""
    _require(name, subjects)
    known = servers.known_state
    async with reach.broker(servers.nats(OPERATOR), OPERATOR) as client:
        try:
            config = streams.subscriber_config(name, list(subjects))
            await client.jetstream().add_consumer(streams.EVENTS, config)
        except (nats.errors.Error, APIError) as error:
            said = getattr(error, "description", None) or str(error)
            raise Trouble(f"the broker did not make the consumer: {said}") from None
    out = terminal.console()
    out.print(f"{name} is given {', '.join(subjects)} of {streams.EVENTS}; let it set NATS_CONSUMER={name}")
    if known is not None and known.embedded_nats:
        embedded.add_subscriber(servers.data_dir, name)
        where = servers.data_dir / embedded.CREDENTIALS
        out.print(f"its login: the user {name} with the password in {where}, once `odooops up` is restarted")
    else:
        out.print(
            f"its login: `python -m runtime.permissions deploy/nats/nats.conf {name}`,"
            f" and NATS_PASSWORD_{name.upper()} for each broker"
        )


def _require(name: str, subjects: Sequence[str]) -> None:
    try:
        subscriber(name)
    except ValueError as error:
        raise BadSettings(str(error)) from None
    if name in (*USERS, *(str(config.durable_name) for _, config in streams.consumer_configs())):
        raise BadSettings(f"{name} is one of our own: choose another name")
    for subject in subjects:
        if not _SUBJECT.fullmatch(subject):
            raise BadSettings(f"{subject} is no subject of events: give one like {SUBJECT_ROOT}.deployment.>")
