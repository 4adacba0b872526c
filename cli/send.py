"""`odooops send`: sign a body as its sender would, and post it to the running ingest."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cli import reach, terminal
from cli.reach import Servers, Trouble
from contracts.delivery import require_ascii, require_identity
from providers import port
from providers.port import Secret, Source
from providers.registry import sources
from runtime import settings, ssot
from runtime.settings import BadSettings
from runtime.streams import ACCEPT_S_MAX, BODY_BYTES_MAX

ANSWER_S_MAX = ACCEPT_S_MAX + 4.0
ANSWER_BYTES_MAX = 64 * 1024


class NotSent(Trouble):
    """a delivery could not be posted"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """What to send, and as whose."""

    source: str
    event: str
    delivery: str
    body: bytes = field(repr=False)


def run(servers: Servers, parcel: Parcel, url: str | None, secret_env: str | None) -> bool:
    """Post a parcel and print the answer; whether it was taken. `url` is another ingest than the folder's.

    A provider may be answered in words of its own, without `ok`.
    """
    source = source_of(servers, parcel.source)
    secret = secret_for(servers, source, secret_env, elsewhere=url is not None)
    status, answer = post(url or servers.state.http_url, parcel, source, secret)
    terminal.print_json(answer)
    return status == 200 and answer.get("ok", True) is True


def source_of(servers: Servers, name: str) -> Source:
    """The source that SSOT declares under `name` and that takes requests; raises BadSettings."""
    declared = sources(ssot.load(reach.ssot_dir(servers.settings)))
    taking = {each.name: each for each in declared.values() if each.file.endpoint is not None}
    if name not in taking:
        raise BadSettings(
            f"no source that takes requests is called {name}: known are {', '.join(sorted(taking))}"
        )
    return taking[name]


def secret_for(servers: Servers, source: Source, variable: str | None, elsewhere: bool = False) -> Secret:
    """What to sign with: the variable that was named, else the data folder's own secret, else the settings'."""
    if source.file.unsigned:
        return Secret("", b"")
    if variable is not None:
        return _first([variable], f"{variable} is not set")
    names = source.file.secrets
    for name, path in {} if elsewhere else servers.state.secret_files.items():
        if name in names:
            lines = Path(path).read_bytes().splitlines()
            if not lines:
                raise BadSettings(
                    f"{path} is empty: put the secret back, or remove the file and restart `odooops up`"
                )
            return Secret(name, lines[0])
    return _first(
        names, f"{source.name} has no secret here: set {' or '.join(names)}, or name one by --secret-env"
    )


def post(base: str, parcel: Parcel, source: Source, secret: Secret) -> tuple[int, dict[str, Any]]:
    """Sign and post one body; the status and the JSON answer. Raises NotSent where there was none."""
    body = parcel.body
    if len(body) > BODY_BYTES_MAX:
        raise NotSent(f"the body has {len(body)} bytes, ingest takes at most {BODY_BYTES_MAX}")
    event, delivery = require_ascii(parcel.event), require_identity(parcel.delivery)
    compose: port.Compose = source.provider.compose  # type: ignore[assignment]  # it takes requests
    try:
        made = compose(
            port.Parcel(body=body, event=event, delivery=delivery, at=datetime.now(UTC)), source, secret
        )
    except (ValueError, port.Refused) as error:
        raise BadSettings(f"{source.name} cannot send this with the secret {secret.name}: {error}") from None
    target = f"{source.file.endpoint}?{made.query}" if made.query else str(source.file.endpoint)
    connection = _connection(base)
    try:
        connection.request("POST", target, made.body, dict(made.headers))
        response = connection.getresponse()
        said = response.read(ANSWER_BYTES_MAX)
    except UnicodeError:
        raise _no_address(base) from None  # a host name that no name server could be asked for
    except (OSError, http.client.HTTPException) as error:
        raise NotSent(f"ingest at {base} did not answer: {error or type(error).__name__}") from None
    finally:
        connection.close()
    try:
        answer = json.loads(said)
    except (ValueError, RecursionError):
        raise NotSent(
            f"what answers at {base} is not ingest: status {response.status}, and no JSON"
        ) from None
    return response.status, answer if isinstance(answer, dict) else {"answer": answer}


def _first(names: list[str], sentence: str) -> Secret:
    found = settings.secret_values(names)
    if not found:
        raise BadSettings(sentence)
    return Secret(*found[0])


def _connection(base: str) -> http.client.HTTPConnection:
    try:
        where = urlsplit(base)
        if where.scheme not in ("http", "https") or not where.hostname:
            raise _no_address(base)
        kind = http.client.HTTPSConnection if where.scheme == "https" else http.client.HTTPConnection
        return kind(where.hostname, where.port, timeout=ANSWER_S_MAX)
    except (ValueError, http.client.InvalidURL):
        raise _no_address(base) from None


def _no_address(base: str) -> BadSettings:
    return BadSettings(f"{base} is no address: give one like http://127.0.0.1:8420")
