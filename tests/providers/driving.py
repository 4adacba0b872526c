"""Drives any provider in tests: a request judged as ingest would, a delivery understood as the projector would."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from contracts.delivery import Delivery, Via, body_sha256
from contracts.envelope import Event
from contracts.ssot import Environments, ProviderFile
from providers.port import Parcel, Provider, Receipt, Refused, Request, Secret, Source

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
RECEIPT_ID = "0b6cf1d3-9a0e-4f6a-8a0e-3f6f0f9f5d11"
Outcome = Receipt | tuple[int, str]


def source_of(
    provider: Provider,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
    environments: Environments = Environments(),  # noqa: B008  # frozen
    **file: Any,
) -> Source:
    """A source of `provider`, as if SSOT had declared it with these `options` and further fields of its file."""
    chosen = name or provider.name
    if provider.verify is not None:
        file.setdefault("endpoint", f"/webhooks/{chosen}")
    return Source(
        name=chosen,
        provider=provider,
        file=ProviderFile(name=chosen, provider=provider.name, options=dict(options or {}), **file),
        options=provider.options.model_validate(options or {}),
        environments=environments,
    )


def judge(
    source: Source,
    headers: Mapping[str, str],
    body: bytes,
    secrets: Sequence[Secret],
    *,
    at: datetime = NOW,
    query: str = "",
    receipt_id: str = RECEIPT_ID,
    chunks: Iterable[bytes] | None = None,
) -> Outcome:
    """The receipt of a request, or the status and reason that it is refused with. `headers` are lower-cased."""
    assert source.provider.verify is not None
    request = Request(method="POST", headers=headers, query=query, received_at=at, receipt_id=receipt_id)
    try:
        verification = source.provider.verify(request, source, secrets)
        for chunk in [body] if chunks is None else chunks:
            verification.update(chunk)
        return verification.finish(body)
    except Refused as refused:
        return refused.status, refused.reason


def judge_composed(
    source: Source, secret: Secret, body: bytes, event: str, delivery: str = "d-1", at: datetime = NOW
) -> Outcome:
    """The outcome of the request that the provider itself would compose."""
    assert source.provider.compose is not None
    parcel = Parcel(body=body, event=event, delivery=delivery, at=at)
    made = source.provider.compose(parcel, source, secret)
    headers = {name.lower(): value for name, value in made.headers.items()}
    return judge(source, headers, made.body, [secret], at=at, query=made.query)


def delivery_of(
    source: Source,
    kind: str,
    body: bytes,
    *,
    headers: Mapping[str, str] | None = None,
    identity: str = "d-1",
    received_at: datetime = NOW,
    via: Via = "webhook",
    seq: int = 1,
) -> Delivery:
    """A delivery as the log would hold it."""
    return Delivery(
        source=source.name,
        identity=identity,
        kind=kind,
        via=via,
        received_at=received_at,
        body=body,
        body_sha256=body_sha256(body),
        verified_by="A_SECRET",
        headers=dict(headers or {}),
        seq=seq,
    )


def events_of(source: Source, delivery: Delivery) -> list[Event]:
    """What a delivery means; raises Ignored or Unintelligible."""
    return list(source.provider.normalize(delivery, source))
