"""What SSOT may say about a sender without code, and how it is told what is wrong and how to mend it."""

from __future__ import annotations

from typing import Any

import pytest

from contracts.ssot import BadSsot, ProviderFile, Ssot
from providers.registry import sources

BEARER: dict[str, Any] = {"bearer": {"header": "authorization"}}
HMAC: dict[str, Any] = {"header": "x-signature"}
STAMP: dict[str, Any] = {"header": "x-timestamp"}


def declare(options: Any, **file: Any) -> str:
    """What is said about a source with these options; nothing, where all is well."""
    given = {"secrets": ["A_SECRET"], **file}
    entry = ProviderFile(
        name="acme", provider="generic", endpoint="/webhooks/generic/acme", options=options, **given
    )
    try:
        sources(Ssot({"acme": entry}))
    except BadSsot as error:
        return str(error).removeprefix("ssot/providers/acme.yaml: ")
    return ""


@pytest.mark.parametrize(
    "options",
    [
        {"verify": BEARER},
        {"verify": {"bearer": {"header": "X-Token", "scheme": "Token"}}},
        {"verify": {"bearer": {"query": "token"}}},
        {"verify": {"basic": {"user": "acme"}}},
        {"verify": {"hmac": HMAC}},
        {"verify": {"hmac": {**HMAC, "signed": "{timestamp}.{body}", "timestamp": STAMP}}},
        {"verify": BEARER, "identity": {"pointer": "/a~1b/0/~0"}, "kind": {"constant": "a.b"}},
        {"verify": BEARER, "time": {"pointer": "/at"}, "ref": "/id", "title": "/title"},
    ],
)
def test_what_makes_sense_is_taken(options: dict[str, Any]) -> None:
    assert "" == declare(options)


def test_an_unsigned_source_says_so_twice() -> None:
    assert "" == declare({"verify": "none"}, unsigned=True, secrets=[])
    assert "" == declare({}, unsigned=True, secrets=[])


ONE_OF_TWO = "give exactly one of header and query"


@pytest.mark.parametrize(
    ("options", "file", "said"),
    [
        ({}, {}, "options.verify is missing: say hmac, bearer or basic, or none together with unsigned: true"),
        ({"verify": "none"}, {}, "options.verify is missing"),
        ({"verify": BEARER}, {"unsigned": True}, "options.verify and unsigned: true exclude each other"),
        ({"verify": BEARER}, {"secrets": []}, "secrets: name the one that options.verify needs"),
        ({"verify": "nothing"}, {}, "options.verify: "),
        ({"verify": {}}, {}, "options.verify: give exactly one of hmac, bearer and basic"),
        ({"verify": {**BEARER, "basic": {"user": "a"}}}, {}, "options.verify: give exactly one of hmac"),
        ({"verify": {"bearer": {}}}, {}, f"options.verify.bearer: {ONE_OF_TWO}"),
        ({"verify": {"bearer": {"header": "a", "query": "b"}}}, {}, f"options.verify.bearer: {ONE_OF_TWO}"),
        ({"verify": {"bearer": {"query": "b", "scheme": "x"}}}, {}, "options.verify.bearer: `scheme` belongs"),
        ({"verify": {"bearer": {"header": "a b"}}}, {}, "options.verify.bearer.header: "),
        ({"verify": {"basic": {"user": "a:b"}}}, {}, "options.verify.basic.user: "),
        ({"verify": {"hmac": {}}}, {}, f"options.verify.hmac: {ONE_OF_TWO}"),
        ({"verify": {"hmac": {**HMAC, "algorithm": "md5"}}}, {}, "options.verify.hmac.algorithm: "),
        ({"verify": {"hmac": {**HMAC, "encoding": "hexa"}}}, {}, "options.verify.hmac.encoding: "),
        ({"verify": {"hmac": {**HMAC, "colour": 1}}}, {}, "options.verify.hmac.colour: Extra inputs"),
        ({"verify": {"hmac": {**HMAC, "signed": "x"}}}, {}, "options.verify.hmac.signed: write {body} exactly once"),
        ({"verify": {"hmac": {**HMAC, "signed": "{body}{body}"}}}, {}, "options.verify.hmac.signed: write {body}"),
        ({"verify": {"hmac": {**HMAC, "signed": "{bdy}"}}}, {}, "options.verify.hmac.signed: {bdy} is unknown"),
        ({"verify": {"hmac": {**HMAC, "signed": "{ {body}"}}}, {}, "options.verify.hmac.signed: { is unknown"),
        ({"verify": {"hmac": {**HMAC, "signed": "{timestamp}{body}"}}}, {}, "options.verify.hmac: `timestamp` and"),
        ({"verify": {"hmac": {**HMAC, "timestamp": STAMP}}}, {}, "options.verify.hmac: `timestamp` and"),
        (
            {"verify": {"hmac": {**HMAC, "signed": "{timestamp}{body}", "timestamp": {**STAMP, "tolerance_s": 0}}}},
            {},
            "options.verify.hmac.timestamp.tolerance_s: ",
        ),
        ({"verify": BEARER, "identity": {}}, {}, "options.identity: give exactly one of header and pointer"),
        ({"verify": BEARER, "identity": {"pointer": "id"}}, {}, "options.identity.pointer: a JSON pointer begins"),
        ({"verify": BEARER, "identity": {"pointer": "/a~2"}}, {}, "options.identity.pointer: in a JSON pointer"),
        ({"verify": BEARER, "kind": {"constant": "A B"}}, {}, "options.kind.constant: "),
        ({"verify": BEARER, "time": {"pointer": "/at", "unit": "us"}}, {}, "options.time.unit: "),
        ({"verify": BEARER, "ref": "id"}, {}, "options.ref: a JSON pointer begins with /"),
    ],
)  # fmt: skip
def test_what_makes_none_is_named_by_field_and_fix(options: Any, file: dict[str, Any], said: str) -> None:
    assert declare(options, **file).startswith(said)
