"""What must not be stored leaves no trace in what is: by a list of what stays, whatever else an answer holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.digitalocean.items import items
from providers.digitalocean.kept import ACTION, DATABASE, DROPLET, FIREWALL, VALUE, VALUES, Shape
from providers.port import Unintelligible
from tests.providers.digitalocean.answers import KINDS, PASSWORD, USER, answer, shown

DATABASES = ["database_cluster", "database_clusters"]
HIDDEN = "HIDDEN-7f3a"
SHAPES: dict[str, Shape] = {
    "droplets": DROPLET,
    "databases": DATABASE,
    "firewalls": FIREWALL,
    "actions": ACTION,
}


@pytest.mark.parametrize("name", DATABASES)
def test_a_cluster_is_stored_without_password_user_or_uri(name: str) -> None:
    raw = answer(name).decode()
    stored = b"".join(item.body for item in shown(name)).decode()

    for secret in (PASSWORD, USER, "postgres://"):
        assert secret in raw
        assert secret not in stored


def test_of_a_connection_the_place_is_kept_and_nothing_else() -> None:
    [item] = shown("database_cluster")
    stored = json.loads(item.body)["item"]

    assert {"host", "port", "ssl", "database"} == set(stored["connection"])
    assert not {"private_connection", "standby_connection", "standby_private_connection", "users"} & set(
        stored
    )


def test_the_list_of_what_is_kept_of_a_cluster_is_this_one() -> None:
    """A longer list is a decision about secrets: whoever makes it changes this test as well."""
    assert {
        "connection.database",
        "connection.host",
        "connection.port",
        "connection.ssl",
        "created_at",
        "engine",
        "id",
        "name",
        "num_nodes",
        "private_network_uuid",
        "region",
        "semantic_version",
        "size",
        "status",
        "storage_size_mib",
        "tags",
        "version",
        "version_end_of_life",
    } == set(paths(DATABASE))


def paths(shape: Shape, at: str = "") -> Iterator[str]:
    """The leaves of a shape."""
    if shape in (VALUE, VALUES):
        yield at
    for key, part in shape.items() if isinstance(shape, dict) else ():
        yield from paths(part, f"{at}.{key}" if at else key)
    for part in shape if isinstance(shape, list) else ():
        yield from paths(part, f"{at}[]")


STRANGERS: list[Any] = [
    HIDDEN,
    [HIDDEN],
    {"password": HIDDEN},
    [{"uri": f"postgres://doadmin:{HIDDEN}@host/db"}],
    {HIDDEN: 1},
]


def spoiled(value: Any, shape: Shape, stranger: Any) -> Any:
    """`value` with `stranger` under keys that no list names, at every level, and in place of each that none names."""
    if isinstance(value, list) and isinstance(shape, list):
        return [spoiled(each, shape[0], stranger) for each in value]
    if not isinstance(value, dict) or not isinstance(shape, dict):
        return value
    known = {key: spoiled(part, shape[key], stranger) for key, part in value.items() if key in shape}
    return {**dict.fromkeys(value, stranger), "a_field_of_tomorrow": stranger, **known}


@pytest.mark.parametrize("stranger", STRANGERS, ids=json.dumps)
@pytest.mark.parametrize("name", KINDS)
def test_a_key_that_is_not_on_the_list_leaves_no_trace_at_any_level(name: str, stranger: Any) -> None:
    kind = KINDS[name]
    shape = SHAPES[kind.removeprefix("gpu_")]
    page = json.loads(answer(name))
    spoilt = {
        key: [spoiled(each, shape, stranger) for each in value]
        if isinstance(value, list)
        else spoiled(value, shape, stranger)
        for key, value in page.items()
        if key not in ("links", "meta")
    }

    assert [item.body for item in shown(name)] == [
        item.body for item in items(kind, kind, json.dumps({**spoilt, "links": stranger}).encode())
    ]


@pytest.mark.parametrize(
    "stranger", [{"password": HIDDEN}, [{"password": HIDDEN}], [[HIDDEN]]], ids=json.dumps
)
@pytest.mark.parametrize("path", sorted(paths(DATABASE)))
def test_an_object_where_a_plain_value_is_expected_leaves_no_trace(path: str, stranger: Any) -> None:
    page = json.loads(answer("database_cluster"))
    *way, last = path.split(".")
    found = page["database"]
    for key in way:
        found = found[key]
    found[last] = stranger

    assert HIDDEN not in said_of(json.dumps(page).encode())


@given(data=st.data())
@settings(max_examples=60)
def test_no_refusal_repeats_a_value(data: st.DataObject) -> None:
    page = data.draw(
        st.recursive(
            st.sampled_from([HIDDEN, None, 1, True]),
            lambda inner: (
                st.dictionaries(
                    st.sampled_from(["databases", "database", "id", "message", "connection", HIDDEN]), inner
                )
                | st.lists(inner, max_size=2)
            ),
            max_leaves=8,
        )
    )
    # `id` names the thing: it alone may stand in what is stored.
    stored = said_of(json.dumps(page).encode())

    assert HIDDEN not in stored.replace(f'"id":"{HIDDEN}"', "")


def said_of(page: bytes) -> str:
    """Everything that is stored of a page of databases, or said about it."""
    try:
        return "".join(item.body.decode() for item in items("databases", "databases", page))
    except Unintelligible as refused:
        return f"{refused} {refused.reason}"
