"""How real senders prove themselves, as their documentation describes it, and what SSOT says to take each.

What signs here is written from those descriptions with the standard library alone, and shares nothing with the code
that verifies.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from tests.providers.driving import NOW, RECEIPT_ID

SECOND = int(NOW.timestamp())
MILLISECOND = SECOND * 1000
ISO = datetime.fromtimestamp(SECOND, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
KEY = b"It's a Secret to Everybody"
ADDRESS = "https://ops.example.com/webhooks/generic/"


def mac(content: bytes, algorithm: str = "sha256", key: bytes = KEY) -> str:
    """A signature in hex."""
    return hmac.new(key, content, getattr(hashlib, algorithm)).hexdigest()


def mac64(content: bytes, algorithm: str = "sha256") -> str:
    """A signature in base64."""
    return b64encode(bytes.fromhex(mac(content, algorithm))).decode()


def at(*parts: str | int | bytes) -> bytes:
    """The parts as one text."""
    return b"".join(part if isinstance(part, bytes) else str(part).encode() for part in parts)


@dataclass(frozen=True)
class Style:
    """One sender: what SSOT says of it, what it sends, and what that is taken for."""

    name: str
    verify: Any
    headers: Callable[[bytes], Mapping[str, str]]
    """The headers of a genuine request for a body."""
    body: bytes
    identity: str
    kind: str
    options: Mapping[str, Any] = field(default_factory=dict)
    query: Callable[[bytes], str] = lambda body: ""
    proves_the_body: bool = True

    @property
    def all_options(self) -> dict[str, Any]:
        """`options` as its file has them."""
        return {"verify": self.verify, **self.options}


def told(**body: Any) -> bytes:
    return json.dumps(body).encode()


PLAIN = told(id="evt_1", type="thing.changed")

STYLES = (
    # https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
    Style(
        "github",
        {"hmac": {"header": "X-Hub-Signature-256", "prefix": "sha256="}},
        lambda body: {
            "x-hub-signature-256": f"sha256={mac(body)}",
            "x-github-delivery": "d-1",
            "x-github-event": "pull_request",
        },
        told(action="opened"),
        "d-1",
        "pull_request",
        {"identity": {"header": "X-GitHub-Delivery"}, "kind": {"header": "X-GitHub-Event"}},
    ),
    # https://docs.gitlab.com/user/project/integrations/webhooks/
    Style(
        "gitlab",
        {"bearer": {"header": "X-Gitlab-Token"}},
        lambda body: {
            "x-gitlab-token": KEY.decode(),
            "idempotency-key": "d-2",
            "x-gitlab-event": "Push Hook",
        },
        told(object_kind="push"),
        "d-2",
        "push",
        {"identity": {"header": "Idempotency-Key"}, "kind": {"pointer": "/object_kind"}},
        proves_the_body=False,
    ),
    # https://docs.stripe.com/webhooks (verify manually): one header holds time and signatures, old schemes beside new
    Style(
        "stripe",
        {
            "hmac": {
                "header": "Stripe-Signature",
                "separator": ",",
                "prefix": "v1=",
                "signed": "{timestamp}.{body}",
                "timestamp": {"header": "Stripe-Signature", "separator": ",", "prefix": "t="},
            }
        },
        lambda body: {
            "stripe-signature": f"t={SECOND},v1={'0' * 64},v1={mac(at(SECOND, '.', body))},v0={'1' * 64}"
        },
        told(id="evt_2", type="invoice.paid", created=SECOND),
        "evt_2",
        "invoice.paid",
        {
            "identity": {"pointer": "/id"},
            "kind": {"pointer": "/type"},
            "time": {"pointer": "/created", "unit": "s"},
        },
    ),
    # https://docs.slack.dev/authentication/verifying-requests-from-slack
    Style(
        "slack_like",
        {
            "hmac": {
                "header": "X-Slack-Signature",
                "prefix": "v0=",
                "signed": "v0:{timestamp}:{body}",
                "timestamp": {"header": "X-Slack-Request-Timestamp"},
            }
        },
        lambda body: {
            "x-slack-request-timestamp": str(SECOND),
            "x-slack-signature": f"v0={mac(at('v0:', SECOND, ':', body))}",
        },
        b"command=%2Fops&text=status",
        RECEIPT_ID,
        "command",
        {"kind": {"constant": "command"}},
    ),
    # https://shopify.dev/docs/apps/build/webhooks/subscribe/https
    Style(
        "shopify",
        {"hmac": {"header": "X-Shopify-Hmac-Sha256", "encoding": "base64"}},
        lambda body: {
            "x-shopify-hmac-sha256": mac64(body),
            "x-shopify-event-id": "98880550-7158-44d4-b7cd-2c97c8a091b5",
            "x-shopify-topic": "orders/create",
        },
        told(id=820982911946154508),
        "98880550-7158-44d4-b7cd-2c97c8a091b5",
        "orders_create",
        {"identity": {"header": "X-Shopify-Event-Id"}, "kind": {"header": "X-Shopify-Topic"}},
    ),
    # https://support.atlassian.com/bitbucket-cloud/docs/manage-webhooks/
    Style(
        "bitbucket",
        {"hmac": {"header": "X-Hub-Signature", "prefix": "sha256="}},
        lambda body: {
            "x-hub-signature": f"sha256={mac(body)}",
            "x-request-uuid": "{ab-1}",
            "x-event-key": "repo:push",
        },
        told(push={}),
        "{ab-1}",
        "repo_push",
        {"identity": {"header": "X-Request-UUID"}, "kind": {"header": "X-Event-Key"}},
    ),
    # https://linear.app/developers/webhooks
    Style(
        "linear",
        {"hmac": {"header": "Linear-Signature"}},
        lambda body: {"linear-signature": mac(body), "linear-delivery": "d-3", "linear-event": "Issue"},
        told(action="create", type="Issue", webhookTimestamp=MILLISECOND, url="https://linear.app/x"),
        "d-3",
        "issue",
        {
            "identity": {"header": "Linear-Delivery"},
            "kind": {"header": "Linear-Event"},
            "time": {"pointer": "/webhookTimestamp", "unit": "ms"},
        },
    ),
    # https://docs.sentry.io/organization/integrations/integration-platform/webhooks/
    Style(
        "sentry",
        {"hmac": {"header": "Sentry-Hook-Signature"}},
        lambda body: {
            "sentry-hook-signature": mac(body),
            "request-id": "d-4",
            "sentry-hook-resource": "event_alert",
        },
        told(action="triggered", data={"event": {"title": "ZeroDivisionError"}}),
        "d-4",
        "event_alert",
        {
            "identity": {"header": "Request-ID"},
            "kind": {"header": "Sentry-Hook-Resource"},
            "title": "/data/event/title",
        },
    ),
    # https://developer.pagerduty.com/docs/verifying-webhook-signatures: a list, while a key is changed
    Style(
        "pagerduty",
        {"hmac": {"header": "X-PagerDuty-Signature", "separator": ",", "prefix": "v1="}},
        lambda body: {"x-pagerduty-signature": f"v1={'0' * 64},v1={mac(body)}"},
        told(
            event={
                "id": "5ac64822",
                "event_type": "incident.triggered",
                "occurred_at": ISO,
                "data": {"id": "PGR0VU2", "title": "Disk full"},
            }
        ),
        "5ac64822",
        "incident.triggered",
        {
            "identity": {"pointer": "/event/id"},
            "kind": {"pointer": "/event/event_type"},
            "time": {"pointer": "/event/occurred_at"},
            "ref": "/event/data/id",
            "title": "/event/data/title",
        },
    ),
    # https://developers.intercom.com/docs/webhooks: SHA-1
    Style(
        "intercom",
        {"hmac": {"header": "X-Hub-Signature", "prefix": "sha1=", "algorithm": "sha1"}},
        lambda body: {"x-hub-signature": f"sha1={mac(body, 'sha1')}"},
        told(id="notif_1", topic="conversation.user.created", created_at=SECOND),
        "notif_1",
        "conversation.user.created",
        {"identity": {"pointer": "/id"}, "kind": {"pointer": "/topic"}},
    ),
    # https://www.typeform.com/developers/webhooks/secure-your-webhooks/: a prefix, and base64
    Style(
        "typeform",
        {"hmac": {"header": "Typeform-Signature", "prefix": "sha256=", "encoding": "base64"}},
        lambda body: {"typeform-signature": f"sha256={mac64(body)}"},
        told(event_id="LtWXD3crgy", event_type="form_response"),
        "LtWXD3crgy",
        "form_response",
        {"identity": {"pointer": "/event_id"}, "kind": {"pointer": "/event_type"}},
    ),
    # https://developer.paddle.com/webhooks/signature-verification
    Style(
        "paddle",
        {
            "hmac": {
                "header": "Paddle-Signature",
                "separator": ";",
                "prefix": "h1=",
                "signed": "{timestamp}:{body}",
                "timestamp": {"header": "Paddle-Signature", "separator": ";", "prefix": "ts="},
            }
        },
        lambda body: {"paddle-signature": f"ts={SECOND};h1={mac(at(SECOND, ':', body))}"},
        told(event_id="evt_01h", event_type="transaction.billed", occurred_at=ISO),
        "evt_01h",
        "transaction.billed",
        {
            "identity": {"pointer": "/event_id"},
            "kind": {"pointer": "/event_type"},
            "time": {"pointer": "/occurred_at"},
        },
    ),
    # https://developer.zendesk.com/documentation/webhooks/verifying/: the time is ISO text, and nothing is between
    Style(
        "zendesk",
        {
            "hmac": {
                "header": "X-Zendesk-Webhook-Signature",
                "encoding": "base64",
                "signed": "{timestamp}{body}",
                "timestamp": {"header": "X-Zendesk-Webhook-Signature-Timestamp", "unit": "iso"},
            }
        },
        lambda body: {
            "x-zendesk-webhook-signature": mac64(at(ISO, body)),
            "x-zendesk-webhook-signature-timestamp": ISO,
        },
        PLAIN,
        "evt_1",
        "thing.changed",
        {"identity": {"pointer": "/id"}, "kind": {"pointer": "/type"}},
    ),
    # https://developer.hashicorp.com/terraform/cloud-docs/api-docs/notification-configurations: SHA-512
    Style(
        "terraform_cloud",
        {"hmac": {"header": "X-TFE-Notification-Signature", "algorithm": "sha512"}},
        lambda body: {"x-tfe-notification-signature": mac(body, "sha512")},
        told(run_id="run-1", run_message="Apply", notifications=[{"trigger": "run:completed"}]),
        RECEIPT_ID,
        "run_completed",
        {"kind": {"pointer": "/notifications/0/trigger"}, "ref": "/run_id", "title": "/run_message"},
    ),
    # https://buildkite.com/docs/apis/webhooks/pipelines
    Style(
        "buildkite",
        {
            "hmac": {
                "header": "X-Buildkite-Signature",
                "separator": ",",
                "prefix": "signature=",
                "signed": "{timestamp}.{body}",
                "timestamp": {"header": "X-Buildkite-Signature", "separator": ",", "prefix": "timestamp="},
            }
        },
        lambda body: {
            "x-buildkite-signature": f"timestamp={SECOND},signature={mac(at(SECOND, '.', body))}",
            "x-buildkite-event": "build.finished",
        },
        told(event="build.finished"),
        RECEIPT_ID,
        "build.finished",
        {"kind": {"header": "X-Buildkite-Event"}},
    ),
    # https://circleci.com/docs/webhooks/
    Style(
        "circleci",
        {"hmac": {"header": "circleci-signature", "separator": ",", "prefix": "v1="}},
        lambda body: {"circleci-signature": f"v1={mac(body)},v2=other"},
        told(id="3888f21b", type="workflow-completed", happened_at=ISO),
        "3888f21b",
        "workflow-completed",
        {
            "identity": {"pointer": "/id"},
            "kind": {"pointer": "/type"},
            "time": {"pointer": "/happened_at"},
        },
    ),
    # https://developer.atlassian.com/cloud/trello/guides/rest-api/webhooks/: the address is signed after the body
    Style(
        "trello",
        {
            "hmac": {
                "header": "X-Trello-Webhook",
                "algorithm": "sha1",
                "encoding": "base64",
                "signed": f"{{body}}{ADDRESS}trello",
            }
        },
        lambda body: {"x-trello-webhook": mac64(at(body, ADDRESS, "trello"), "sha1")},
        told(action={"id": "a-1", "type": "updateCard", "date": ISO}),
        "a-1",
        "updatecard",
        {"identity": {"pointer": "/action/id"}, "kind": {"pointer": "/action/type"}},
    ),
    # https://developers.hubspot.com/docs/apps/developer-platform/build-apps/authentication/request-validation (v3)
    Style(
        "hubspot",
        {
            "hmac": {
                "header": "X-HubSpot-Signature-v3",
                "encoding": "base64",
                "signed": f"POST{ADDRESS}hubspot{{body}}{{timestamp}}",
                "timestamp": {"header": "X-HubSpot-Request-Timestamp", "unit": "ms"},
            }
        },
        lambda body: {
            "x-hubspot-signature-v3": mac64(at("POST", ADDRESS, "hubspot", body, MILLISECOND)),
            "x-hubspot-request-timestamp": str(MILLISECOND),
        },
        b'[{"eventId": 100, "subscriptionType": "contact.creation"}]',
        "100",
        "contact.creation",
        {"identity": {"pointer": "/0/eventId"}, "kind": {"pointer": "/0/subscriptionType"}},
    ),
    # https://core.telegram.org/bots/api#setwebhook
    Style(
        "telegram",
        {"bearer": {"header": "X-Telegram-Bot-Api-Secret-Token"}},
        lambda body: {"x-telegram-bot-api-secret-token": KEY.decode()},
        told(update_id=10000),
        "10000",
        "update",
        {"identity": {"pointer": "/update_id"}, "kind": {"constant": "update"}},
        proves_the_body=False,
    ),
    # https://prometheus.io/docs/alerting/latest/configuration/#webhook_config with http_config.authorization
    Style(
        "alertmanager",
        {"bearer": {"header": "Authorization"}},
        lambda body: {"authorization": f"Bearer {KEY.decode()}"},
        told(status="firing", groupKey="{}:{alertname=DiskFull}", commonAnnotations={"summary": "Disk"}),
        RECEIPT_ID,
        "firing",
        {"kind": {"pointer": "/status"}, "ref": "/groupKey", "title": "/commonAnnotations/summary"},
        proves_the_body=False,
    ),
    # https://grafana.com/docs/grafana/latest/alerting/ (contact point "webhook" with basic authentication)
    Style(
        "grafana",
        {"basic": {"user": "grafana"}},
        lambda body: {"authorization": "Basic " + b64encode(b"grafana:" + KEY).decode()},
        told(status="resolved", groupKey="g-1", title="[RESOLVED] Disk"),
        RECEIPT_ID,
        "resolved",
        {"kind": {"pointer": "/status"}, "ref": "/groupKey", "title": "/title"},
        proves_the_body=False,
    ),
    # https://docs.docker.com/docker-hub/repos/manage/webhooks/: signs nothing, so the address holds a token
    Style(
        "docker_hub",
        {"bearer": {"query": "token"}},
        lambda body: {},
        told(repository={"repo_name": "example/odoo"}, push_data={"tag": "19.0", "pushed_at": SECOND}),
        RECEIPT_ID,
        "image_pushed",
        {
            "kind": {"constant": "image_pushed"},
            "ref": "/repository/repo_name",
            "time": {"pointer": "/push_data/pushed_at", "unit": "s"},
            "title": "/push_data/tag",
        },
        query=lambda body: urlencode({"token": KEY.decode()}),
        proves_the_body=False,
    ),
    # A signature in the address, as older partners' systems send it.
    Style(
        "signed_address",
        {"hmac": {"query": "sig", "algorithm": "sha512", "encoding": "base64"}},
        lambda body: {"content-type": "text/plain"},
        b"nightly import finished",
        RECEIPT_ID,
        "message",
        query=lambda body: urlencode({"n": "1", "sig": mac64(body, "sha512")}),
    ),
)
