"""Who may do what on the broker: one user per service, each with the least it needs.

The embedded server and compose.yaml both get their users from `users_block`; only the operator may delete.

A user's permissions alone do not keep that promise: the broker sends an answer to whatever subject the question
named, and checks no permission for it. Whoever may read a message could have it "answered" to
`$JS.API.STREAM.DELETE.DELIVERIES`, which deletes the log (measured with 2.15). So the streams live in an account
of their own, and each service in another one that imports the subjects it may publish to and nothing else: an
answer reaches nothing that the service could not have published itself.
`python -m runtime.permissions deploy/nats/nats.conf [SUBSCRIBER …]` writes them into that file, after any change here.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.streams import (
    ARTIFACTS_STREAM,
    BODIES,
    BODIES_STREAM,
    DELIVERIES,
    EVENTS,
    NOTIFIER,
    POLLER_BUCKET,
    POLLER_STREAM,
    PROJECTOR,
)

API = "$JS.API"


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects that a user may publish to, but for those of `deny`; it may subscribe to its own inbox only."""

    publish: tuple[str, ...]
    deny: tuple[str, ...] = ()


def inbox_prefix(user: str) -> str:
    """The inbox prefix of `user`: its own, so that nobody can listen to another's answers."""
    return f"_INBOX_{user}"


def _read_stream(stream: str) -> tuple[str, ...]:
    return (
        f"{API}.STREAM.INFO.{stream}",
        f"{API}.DIRECT.GET.{stream}",
        f"{API}.DIRECT.GET.{stream}.>",
        f"{API}.STREAM.MSG.GET.{stream}",
    )


def _pull(stream: str, consumer: str) -> tuple[str, ...]:
    return (
        f"{API}.CONSUMER.INFO.{stream}.{consumer}",
        f"{API}.CONSUMER.MSG.NEXT.{stream}.{consumer}",
        f"$JS.ACK.{stream}.{consumer}.>",
        # A clustered or prefixed server puts domain and account hash before the stream's name.
        f"$JS.ACK.*.*.{stream}.{consumer}.>",
    )


SERVERS = "$SYS.REQ.SERVER.PING.VARZ"
"""Answered by each server with its figures: whether it syncs every write, its disk, its clock; and no password."""

# The pieces of a body are asked of the leader, one by one (see runtime/bus.py): no consumer is made for it.
_READ_BODIES = (f"{API}.STREAM.INFO.{BODIES_STREAM}", f"{API}.STREAM.MSG.GET.{BODIES_STREAM}")

_SUBSCRIBER = re.compile(r"[a-z][a-z0-9_]{0,31}")


def subscriber(name: str) -> Permissions:
    """What a reader of EVENTS may do: pull from the durable consumer of its own name, and acknowledge.

    Raises ValueError for a name that cannot be one.
    """
    if not _SUBSCRIBER.fullmatch(name):
        raise ValueError(
            f"{name!r} is no subscriber's name: one has up to 32 of a-z, 0-9 and _, a letter first"
        )
    return Permissions(publish=(f"{API}.STREAM.INFO.{EVENTS}", *_pull(EVENTS, name)))


POLLED_FAMILIES = (
    "poll",
    "listing",
    "healthcheck",
    "metric",
    "webhook",
    "backup",
    "advisor_run",
)
"""What the poller says itself, by the first word of its kinds."""

USERS: Mapping[str, Permissions] = {
    "ingest": Permissions(
        publish=(
            "deliveries.>",
            f"$O.{BODIES}.>",
            f"{API}.STREAM.INFO.{DELIVERIES}",
            *_READ_BODIES,
            SERVERS,
        ),
        # What operators say of deliveries and of secrets, and the projector and the poller of what they found: who
        # stores what senders say must not say it for them.
        deny=tuple(
            f"deliveries.odooops.{family}.>"
            for family in ("delivery", "secret", "drift", "resource", "webhook")
        ),
    ),
    "projector": Permissions(
        publish=(
            "events.>",
            f"{API}.STREAM.INFO.{EVENTS}",
            *_read_stream(DELIVERIES),
            *_pull(DELIVERIES, PROJECTOR),
            *_READ_BODIES,
            SERVERS,
            # What it found to be other than a table said, or gone: words of ours, that take the way of all words.
            "deliveries.odooops.drift.found",
            "deliveries.odooops.resource.gone",
        )
    ),
    "notifier": subscriber(NOTIFIER),
    "poller": Permissions(
        publish=(
            "deliveries.*.observed.>",
            *(f"deliveries.odooops.{family}.>" for family in POLLED_FAMILIES),
            # What an advisor found, and never what somebody decided about it: that is of the same family.
            "deliveries.odooops.advisor_finding.found",
            f"$O.{BODIES}.>",
            f"{API}.STREAM.INFO.{DELIVERIES}",
            *_READ_BODIES,
            f"$KV.{POLLER_BUCKET}.>",
            *_read_stream(POLLER_STREAM),
        )
    ),
    "reader": Permissions(
        publish=(
            f"{API}.INFO",
            *_read_stream(DELIVERIES),
            *_read_stream(EVENTS),
            *_READ_BODIES,
            # Only how it is set and how full it is: who may write and read artifacts comes with who makes them.
            f"{API}.STREAM.INFO.{ARTIFACTS_STREAM}",
            f"{API}.STREAM.INFO.{POLLER_STREAM}",
            f"{API}.CONSUMER.INFO.{DELIVERIES}.*",
            f"{API}.CONSUMER.INFO.{EVENTS}.*",
            SERVERS,
        )
    ),
    "operator": Permissions(publish=(">",)),
}


def question(user: str) -> str:
    """What `user` may ask JetStream at any time: how the log is, or else the events. Raises ValueError for no user."""
    of_log = f"{API}.STREAM.INFO.{DELIVERIES}"
    allowed = (USERS.get(user) or subscriber(user)).publish
    return of_log if {of_log, ">"} & set(allowed) else f"{API}.STREAM.INFO.{EVENTS}"


LOG_ACCOUNT = "LOG"
SYSTEM_ACCOUNT = "$SYS"
"""The servers' own. Nobody logs in to it: whoever could might read and steer everything."""
OPERATOR = "operator"
_EXISTENCE = f"{API}.INFO"
"""Imported by every account: without it, the server itself answers there that it has no JetStream."""


def users_block(passwords: Mapping[str, str]) -> str:
    """The `accounts` block of a server's configuration; a password may be a `$VARIABLE`.

    Whoever has a password and is none of USERS is a subscriber.
    """
    services = {user: permissions for user, permissions in USERS.items() if user != OPERATOR}
    services |= {name: subscriber(name) for name in passwords if name not in USERS}
    exported = sorted(
        {_EXISTENCE}.union(*(permissions.publish for permissions in services.values())) - {SERVERS}
    )
    lines = [
        "accounts {",
        f"  {json.dumps(SYSTEM_ACCOUNT)} {{",
        f"    exports: [{{ service: {json.dumps(SERVERS)}, response_type: stream }}]",
        "  }",
        f"  {LOG_ACCOUNT} {{",
        "    jetstream: enabled",
        *_user(OPERATOR, passwords[OPERATOR], USERS[OPERATOR], ">"),
        "    exports: [",
        *(f"      {{ service: {json.dumps(subject)}{_answers(subject)} }}" for subject in exported),
        "    ]",
        f"    imports: [{_imported(SERVERS)}]",
        "  }",
    ]
    for user, permissions in services.items():
        imported = sorted({_EXISTENCE, *permissions.publish})
        lines += [
            f"  {user.upper()} {{",
            *_user(user, passwords[user], permissions, f"{inbox_prefix(user)}.>"),
            "    imports: [",
            *(f"      {_imported(subject)}" for subject in imported),
            "    ]",
            "  }",
        ]
    return "\n".join([*lines, "}", ""])


def _user(user: str, password: str, permissions: Permissions, subscribe: str) -> list[str]:
    denied = f", deny: {json.dumps(permissions.deny)}" if permissions.deny else ""
    quoted = password if password.startswith("$") else json.dumps(password)
    return [
        f'    users: [{{ user: "{user}", password: {quoted}, permissions: {{',
        "      publish: { allow: [",
        *(f"        {json.dumps(subject)}" for subject in permissions.publish),
        f"      ]{denied} }}",
        f"      subscribe: {{ allow: [{json.dumps(subscribe)}] }}",
        "    } }]",
    ]


def _imported(subject: str) -> str:
    account = json.dumps(SYSTEM_ACCOUNT) if subject == SERVERS else LOG_ACCOUNT
    return f"{{ service: {{ account: {account}, subject: {json.dumps(subject)} }} }}"


def _answers(subject: str) -> str:
    """A pull is answered by many messages, all else by one."""
    return ", response_type: stream" if ".CONSUMER.MSG.NEXT." in subject else ""


def with_users(config: str, subscribers: Sequence[str] = ()) -> str:
    """`config` with its last part, from `accounts {` on, made anew; passwords are `$NATS_PASSWORD_<USER>`."""
    head, found, _ = config.partition("\naccounts {")
    if not found:
        raise ValueError("the configuration has no line `accounts {` to replace from")
    return (
        f"{head}\n{users_block({user: f'$NATS_PASSWORD_{user.upper()}' for user in (*USERS, *subscribers)})}"
    )


def main(arguments: Sequence[str]) -> int:
    if not arguments:
        sys.stderr.write("usage: python -m runtime.permissions deploy/nats/nats.conf [SUBSCRIBER …]\n")
        return 2
    path = Path(arguments[0])
    try:
        written = with_users(path.read_text(encoding="utf-8"), arguments[1:])
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    path.write_text(written, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
