"""The shapes of the YAML files under ssot/, and the one mechanism that names environments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from contracts.envelope import Env

SOURCE_PATTERN = r"^[a-z0-9_-]{1,64}$"
ENDPOINT_PATTERN = r"^/webhooks(/[A-Za-z0-9_-]{1,64}){1,4}$"

Named = Literal["prod", "stage", "dev"]


class BadSsot(ValueError):
    """SSOT says something that cannot be done; the message names file, field and fix"""


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


OneOrMore = Annotated[list[str], BeforeValidator(_listed)]
"""A text or a list of them."""


class Strict(BaseModel):
    """A mapping that takes no key but its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ProviderFile(Strict):
    """ssot/providers/<name>.yaml: a source of deliveries."""

    name: str = Field(pattern=SOURCE_PATTERN)
    provider: str | None = Field(
        default=None, description="whose code understands it; the source's own name unless given"
    )
    endpoint: str | None = Field(
        default=None, pattern=ENDPOINT_PATTERN, description="where it posts to; none for what is only polled"
    )
    secrets: list[str] = Field(default=[], description="names of environment variables, never values")
    unsigned: bool = False
    """True only where the sender cannot sign at all; everybody can then write into the log."""
    events: list[str] = []
    poll_interval_s: int | None = Field(
        default=None, ge=60, description="how often a poll repairs what was missed"
    )
    refs: list[str] = Field(default=[], description="the forms of the refs that it names")
    feeds: list[str] = Field(default=[], description="tables of the schema ops")
    pages: list[str] = Field(default=[], description="pages of the console")
    options: dict[str, Any] = Field(default={}, description="what its provider needs to know besides")

    @property
    def provider_name(self) -> str:
        """Whose code understands this source."""
        return self.provider or self.name


class EnvironmentRule(Strict):
    """One line of ssot/environments.yaml: all traits that it states have to match, by any of their patterns."""

    env: Named
    source: OneOrMore = []
    repository: OneOrMore = []
    branch: OneOrMore = []
    target: OneOrMore = Field(default=[], description="the provider's own name of an environment: production")
    domain: OneOrMore = []
    tag: OneOrMore = []
    variable: OneOrMore = Field(default=[], description="name=value")

    def matches(self, traits: Mapping[str, Iterable[str]]) -> bool:
        """Whether every stated trait has a value that one of its patterns fits (`*` stands for any text)."""
        for trait, patterns in self.stated:
            values = traits.get(trait)
            if not values or not any(fnmatchcase(value, each) for value in values for each in patterns):
                return False
        return bool(self.stated)

    @cached_property
    def stated(self) -> tuple[tuple[str, list[str]], ...]:
        """The traits that it states, with their patterns: found once, since every delivery is held against it."""
        return tuple((trait, patterns) for trait in TRAITS if (patterns := getattr(self, trait)))


TRAITS = tuple(name for name in EnvironmentRule.model_fields if name != "env")


class EnvironmentsFile(Strict):
    """ssot/environments.yaml."""

    rules: list[EnvironmentRule] = []


@dataclass(frozen=True, slots=True)
class Environments:
    """Which environment a thing belongs to. The first rule that matches decides; nothing is guessed."""

    rules: tuple[EnvironmentRule, ...] = ()

    def of(self, **traits: str | Iterable[str] | None) -> Env:
        """The environment of a thing with these traits (see EnvironmentRule), `unknown` where no rule fits."""
        given = {
            name: (value,) if isinstance(value, str) else tuple(value)
            for name, value in traits.items()
            if value is not None
        }
        for rule in self.rules:
            if rule.matches(given):
                return rule.env
        return "unknown"


@dataclass(frozen=True, slots=True)
class Ssot:
    """Everything that the YAML files say."""

    providers: Mapping[str, ProviderFile]
    environments: Environments = Environments()
