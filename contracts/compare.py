"""Compares event schemas of two releases: what breaks a reader or a message of old, and what only adds.

A type changes by addition only (docs/events.md). So these break: whatever a reader of the old schema may meet that it
did not have to expect, and whatever of an old message the new schema refuses or gives another meaning. New optional
fields and new words of an enumeration are additions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Schema = Mapping[str, Any]

NULL = "null"
_WIDE: Mapping[str, int] = {
    "maximum": 1,
    "exclusiveMaximum": 1,
    "maxLength": 1,
    "maxItems": 1,
    "minimum": -1,
    "exclusiveMinimum": -1,
    "minLength": -1,
    "minItems": -1,
}
"""Limits: whether the greater (1) or the lesser (-1) lets more through. One that is missing lets all through."""
_EXACT = ("format", "pattern")


@dataclass(frozen=True, slots=True, order=True)
class Difference:
    """One difference; `field` is the path of a field within the data, empty where the whole type is meant."""

    event: str
    field: str
    what: str
    breaking: bool

    def __str__(self) -> str:
        word = "breaking" if self.breaking else "addition"
        return f"{word}: {self.event}{f' {self.field}' if self.field else ''}: {self.what}"


def differences(old: Mapping[str, Schema], new: Mapping[str, Schema]) -> list[Difference]:
    """Every difference between the schemas of two releases, by event type."""
    found = [Difference(name, "", "the type was removed", breaking=True) for name in old.keys() - new.keys()]
    found += [Difference(name, "", "a new type", breaking=False) for name in new.keys() - old.keys()]
    for name in old.keys() & new.keys():
        comparison = _Comparison(name, old[name], new[name])
        found += comparison.of_objects(old[name], new[name], "")
    return sorted(found)


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Two schemas of one type, as the roots that references lead back to."""

    event: str
    old: Schema
    new: Schema

    def of_objects(self, old: Schema, new: Schema, path: str) -> Iterator[Difference]:
        """The fields of an object."""
        was, is_ = old.get("properties", {}), new.get("properties", {})
        had, has = set(old.get("required", ())), set(new.get("required", ()))
        for name in sorted(was.keys() | is_.keys()):
            at = f"{path}.{name}" if path else name
            if name not in is_:
                yield self._breaking(at, "was removed")
            elif name not in was:
                if name in has:
                    yield self._breaking(at, "is new and required: older messages lack it")
                else:
                    yield self._addition(at, "a new field")
            else:
                if name in had - has:
                    yield self._breaking(at, "may now be missing")
                if name in has - had:
                    yield self._breaking(at, "is now required: older messages may lack it")
                yield from self.of_values(was[name], is_[name], at)
        yield from self._others(old.get("additionalProperties"), new.get("additionalProperties"), path)

    def of_values(self, old: Schema, new: Schema, path: str) -> Iterator[Difference]:
        """What a field, an item or a value of a mapping may be."""
        if old.get("default") != new.get("default") and "default" in old and "default" in new:
            yield self._breaking(path, "means something else where it is missing")
        was, is_ = _alternatives(self.old, old), _alternatives(self.new, new)
        for kind in sorted(was.keys() | is_.keys()):
            if kind not in is_:
                yield self._breaking(path, f"may no longer be {_word(kind)}: older messages hold it")
            elif kind not in was:
                yield self._breaking(path, f"may now be {_word(kind)}")
            else:
                yield from self._within(kind, was[kind], is_[kind], path)

    def _within(self, kind: str, old: Schema, new: Schema, path: str) -> Iterator[Difference]:
        yield from self._words(old, new, path)
        yield from self._limits(old, new, path)
        for name in _EXACT:
            if old.get(name) != new.get(name):
                yield self._breaking(path, f"its {name} changed")
        kind = kind.partition(" ")[0]
        if kind == "object":
            yield from self.of_objects(old, new, path)
        if kind == "array":
            yield from self._others(old.get("items"), new.get("items"), f"{path}[]")
            was, is_ = old.get("prefixItems", ()), new.get("prefixItems", ())
            if len(was) != len(is_):
                yield self._breaking(path, "has another number of places")
            for n, (before, after) in enumerate(zip(was, is_, strict=False)):
                yield from self.of_values(before, after, f"{path}[{n}]")

    def _words(self, old: Schema, new: Schema, path: str) -> Iterator[Difference]:
        was, is_ = _enumerated(old), _enumerated(new)
        if bool(was) != bool(is_):
            yield self._breaking(path, f"is {'no longer' if was else 'now'} an enumeration")
            return
        for word in sorted(was - is_, key=str):
            yield self._breaking(path, f"lost the word {word}")
        for word in sorted(is_ - was, key=str):
            yield self._addition(path, f"may be {word}, a new word")

    def _limits(self, old: Schema, new: Schema, path: str) -> Iterator[Difference]:
        for name, direction in _WIDE.items():
            was, is_ = old.get(name), new.get(name)
            if was == is_:
                continue
            wider = is_ is None or (was is not None and (is_ - was) * direction > 0)
            said = (
                f"its {name} went from {'none' if was is None else was} to {'none' if is_ is None else is_}"
            )
            yield self._addition(path, said) if wider else self._breaking(path, said)

    def _others(self, old: Any, new: Any, path: str) -> Iterator[Difference]:
        """What stands for everything not named: a schema, or whether there may be anything."""
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from self.of_values(old, new, path if path.endswith("[]") else f"{path}.*")
        elif old != new:
            yield self._breaking(path, "holds something else")

    def _breaking(self, path: str, what: str) -> Difference:
        return Difference(self.event, path, what, breaking=True)

    def _addition(self, path: str, what: str) -> Difference:
        return Difference(self.event, path, what, breaking=False)


def _alternatives(root: Schema, schema: Schema) -> dict[str, Schema]:
    """What a value may be, by its JSON type, numbered where several have one; without any type it is `anything`."""
    if (reference := schema.get("$ref")) is not None:
        target: Any = root
        for part in str(reference).removeprefix("#/").split("/"):
            target = target[part]
        return _alternatives(root, target)
    found: dict[str, Schema] = {}
    for each in schema.get("anyOf", schema.get("oneOf", ())):
        for kind, one in _alternatives(root, each).items():
            found[kind if kind not in found else f"{kind} {len(found)}"] = one
    kinds = schema.get("type")
    if kinds is not None:
        found |= dict.fromkeys([kinds] if isinstance(kinds, str) else kinds, schema)
    return found or {"anything": schema}


def _enumerated(schema: Schema) -> set[Any]:
    """The words of an enumeration; one of a single word is a constant."""
    return set(schema["enum"]) if "enum" in schema else {schema["const"]} if "const" in schema else set()


def _word(kind: str) -> str:
    return kind if kind in (NULL, "anything") else f"{'an' if kind[0] in 'aio' else 'a'} {kind}"
