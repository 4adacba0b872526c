"""Who may do what on the broker: one user per service, each with the least it needs.

The embedded server and compose.yaml both get their users from `users_block`; only the operator may delete.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from runtime.streams import BODIES, BODIES_STREAM, DELIVERIES, EVENTS, NOTIFIER, PROJECTOR

API = "$JS.API"


@dataclass(frozen=True, slots=True)
class Permissions:
    """Subjects that a user may publish to; it may subscribe to its own inbox only."""

    publish: tuple[str, ...]


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


# Reading an object goes through an ordered, ephemeral consumer of the bucket's stream.
_READ_BODIES = (
    *_read_stream(BODIES_STREAM),
    f"{API}.STREAM.NAMES",
    f"{API}.CONSUMER.CREATE.{BODIES_STREAM}",
    f"{API}.CONSUMER.CREATE.{BODIES_STREAM}.>",
    f"{API}.CONSUMER.INFO.{BODIES_STREAM}.>",
    f"{API}.CONSUMER.DELETE.{BODIES_STREAM}.>",
    "$JS.FC.>",
)

USERS: Mapping[str, Permissions] = {
    "ingest": Permissions(
        publish=(
            "deliveries.>",
            f"$O.{BODIES}.>",
            f"{API}.STREAM.INFO.{DELIVERIES}",
            *_read_stream(BODIES_STREAM),
        )
    ),
    "projector": Permissions(
        publish=(
            "events.>",
            f"{API}.STREAM.INFO.{EVENTS}",
            *_read_stream(DELIVERIES),
            *_pull(DELIVERIES, PROJECTOR),
            *_READ_BODIES,
        )
    ),
    "notifier": Permissions(publish=(f"{API}.STREAM.INFO.{EVENTS}", *_pull(EVENTS, NOTIFIER))),
    "reader": Permissions(
        publish=(
            f"{API}.INFO",
            *_read_stream(DELIVERIES),
            *_read_stream(EVENTS),
            *_READ_BODIES,
            f"{API}.CONSUMER.INFO.{DELIVERIES}.*",
            f"{API}.CONSUMER.INFO.{EVENTS}.*",
        )
    ),
    "operator": Permissions(publish=(">",)),
}


def users_block(passwords: Mapping[str, str]) -> str:
    """The `authorization` block of a server's configuration; a password may be a `$VARIABLE`."""
    lines = ["authorization {", "  users = ["]
    for user, permissions in USERS.items():
        password = passwords[user]
        quoted = password if password.startswith("$") else json.dumps(password)
        subscribe = '">"' if user == "operator" else json.dumps(f"{inbox_prefix(user)}.>")
        lines.append(f'    {{ user: "{user}", password: {quoted}, permissions: {{')
        lines.append(f"        publish: {{ allow: {json.dumps(list(permissions.publish))} }},")
        lines.append(f"        subscribe: {{ allow: [{subscribe}] }} }} }}")
    return "\n".join([*lines, "  ]", "}", ""])
