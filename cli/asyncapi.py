"""The AsyncAPI document: what is on the bus, for people and tools that do not read Python.

FastStream makes it of the registry's events. Laid over it is what FastStream cannot know: the CloudEvents headers, the
log of deliveries, the committed schemas, and that whoever reads this subscribes where we publish.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from faststream.nats import NatsBroker
from faststream.specification import AsyncAPI

from contracts import delivery, envelope
from contracts.envelope import Event
from contracts.registry import EVENTS

TITLE = "OdooOps"
VERSION = "1.0.0"
SCHEMA_FORMAT = "application/schema+json;version=2020-12"

Json = dict[str, Any]

_PERCENT = "Percent-encoded as CloudEvents asks: decode once"
_EVENT_ID = "One id per fact. Equal ids are the same event: act on it once."
EVENT_HEADERS: Mapping[str, Json] = {
    "ce-specversion": {"const": envelope.SPEC_VERSION},
    "ce-id": {"format": "uuid", "description": _EVENT_ID},
    "ce-type": {"enum": list(EVENTS), "description": "Which schema the data follows."},
    "ce-source": {"description": "Who publishes and whose word it is: `odooops/github`."},
    "ce-subject": {"description": f"The thing that the event is about: `ref` of the data. {_PERCENT}."},
    "ce-time": {"format": "date-time", "description": "When it happened: `occurred_at` of the data."},
    "ce-datacontenttype": {"const": envelope.CONTENT_TYPE},
    "ce-delivery": {
        "description": f"The delivery that it was understood from, `source:identity`. {_PERCENT}."
    },
    "content-type": {"const": envelope.CONTENT_TYPE},
    "Nats-Msg-Id": {"description": "What the broker removes copies by: the id, marked where it is a replay."},
    envelope.TRACEPARENT: {
        "description": "Only where OdooOps traces what it does: the span to go on from, as W3C Trace Context has it."
    },
    envelope.REPLAYED: {
        "description": "Only where an operator sent it again: the run by which. Its `ce-id` is that of the first time."
    },
}
DELIVERY_HEADERS: Mapping[str, Json] = {
    delivery.MESSAGE_ID: {"description": "`source:identity:` and the start of the body's hash."},
    delivery.IDENTITY: {"description": "What folds once: the sender's stable id of the delivery."},
    delivery.VIA: {"enum": list(get_args(delivery.Via)), "description": "How we got it."},
    delivery.RECEIVED_AT: {"format": "date-time"},
    delivery.BODY_SHA256: {"pattern": "^[0-9a-f]{64}$", "description": "SHA-256 of the sender's bytes."},
    delivery.VERIFIED_BY: {"description": "Name of the secret that vouched for it, never its value."},
    delivery.BODY_OBJECT: {
        "description": "Where a large body lies in the object store; the message is empty."
    },
    delivery.TRACEPARENT: {
        "description": "Only where the request was traced: its span, as W3C Trace Context has it."
    },
}
_OPTIONAL = {
    delivery.VERIFIED_BY,
    delivery.BODY_OBJECT,
    delivery.TRACEPARENT,
    envelope.REPLAYED,
    envelope.TRACEPARENT,
}

SERVER = "nats"
_SERVER: Json = {
    "host": "{host}:{port}",
    "protocol": "nats",
    "description": "NATS with JetStream: events in the stream EVENTS, deliveries in DELIVERIES.",
    "variables": {"host": {"default": "localhost"}, "port": {"default": "4222"}},
}
_ABOUT = """\
Facts that OdooOps understood from what other systems told it, as CloudEvents 1.0 in NATS binary mode, and the \
log of deliveries that they come from. Written from the subscriber's side. Events arrive at least once and in \
any order; docs/events.md says what that asks of a subscriber."""
_ABOUT_DELIVERIES = """\
The log: what senders said, byte for byte, with how we got it in the headers. Subscribe to events instead: what \
a delivery means may be understood better tomorrow, what an event means stays."""


def document() -> Json:
    """The whole AsyncAPI document."""
    generated = from_faststream()
    return {
        "asyncapi": generated["asyncapi"],
        "info": generated["info"],
        "defaultContentType": generated["defaultContentType"],
        "servers": {SERVER: _SERVER},
        "channels": {
            **{name: _channel(event, generated["channels"][name]) for name, event in EVENTS.items()},
            "deliveries": _deliveries(),
        },
        "operations": {
            f"receive{event.__name__}": {
                "action": "receive",
                "channel": {"$ref": f"#/channels/{name}"},
                "summary": summary_of(event),
            }
            for name, event in EVENTS.items()
        },
        "components": {
            "messages": {
                **{event.__name__: _message(event) for event in EVENTS.values()},
                "Delivery": {
                    "name": "delivery",
                    "summary": "What a sender gave us, byte for byte.",
                    "contentType": "application/octet-stream",
                    "headers": {"$ref": "#/components/schemas/DeliveryHeaders"},
                },
            },
            "schemas": {
                "EventHeaders": _headers(EVENT_HEADERS, {}),
                "DeliveryHeaders": _headers(
                    DELIVERY_HEADERS,
                    {
                        f"^{delivery.SENDER_PREFIX}": {
                            "type": "string",
                            "description": "A header of the sender's request, its name in lower case.",
                        }
                    },
                ),
            },
        },
    }


def from_faststream() -> Json:
    """What FastStream makes of a broker that publishes every type of event."""
    broker = NatsBroker()
    for name, event in EVENTS.items():
        broker.publisher(f"{envelope.SUBJECT_ROOT}.{name}", title=name, schema=event)
    specification = AsyncAPI(broker, title=TITLE, version=VERSION, description=_ABOUT)
    made: Json = specification.to_specification().to_jsonable()
    return made


def summary_of(event: type[Event]) -> str:
    """The first line of an event's docstring."""
    return (event.__doc__ or "").strip().partition("\n")[0]


def _channel(event: type[Event], generated: Json) -> Json:
    # Its binding is left out: AsyncAPI's own one for NATS has no properties on a channel.
    return {
        "address": generated["address"],
        "servers": [{"$ref": f"#/servers/{SERVER}"}],
        "messages": {event.__name__: {"$ref": f"#/components/messages/{event.__name__}"}},
    }


def _deliveries() -> Json:
    return {
        "address": f"{delivery.SUBJECT_ROOT}.{{source}}.{{kind}}",
        "description": _ABOUT_DELIVERIES,
        "messages": {"Delivery": {"$ref": "#/components/messages/Delivery"}},
        "parameters": {
            "source": {"description": "Who sent it: `github`."},
            "kind": {"description": "The sender's word for it, one token or several: `workflow_run`."},
        },
    }


def _message(event: type[Event]) -> Json:
    return {
        "name": event.type,
        "title": event.__name__,
        "summary": summary_of(event),
        "contentType": envelope.CONTENT_TYPE,
        "headers": {"$ref": "#/components/schemas/EventHeaders"},
        "payload": {"schemaFormat": SCHEMA_FORMAT, "schema": {"$ref": f"./schemas/{event.type}.json"}},
    }


def _headers(described: Mapping[str, Json], patterns: Json) -> Json:
    schema: Json = {
        "type": "object",
        "properties": {name: {"type": "string", **about} for name, about in described.items()},
        "required": [name for name in described if name not in _OPTIONAL],
    }
    return {**schema, "patternProperties": patterns} if patterns else schema
