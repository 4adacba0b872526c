"""The shapes of the YAML files under ssot/, and the one mechanism that names environments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from contracts.envelope import Env

SOURCE_PATTERN = r"^[a-z0-9_-]{1,64}$"
ENDPOINT_PATTERN = r"^/webhooks(/[A-Za-z0-9_-]{1,64}){1,4}$"

Named = Literal["prod", "stage", "dev"]
IntegrationCategory = Literal[
    "auth_data",
    "ai_inference",
    "agents",
    "devtools",
    "messaging",
    "observability",
    "analytics",
    "storage",
    "security",
    "workflow",
]
IntegrationProvider = Literal["vercel_marketplace", "supabase_native", "direct", "custom_bridge"]
PlanTier = Literal["baseline", "optional", "premium"]
CostBand = Literal["free", "included", "low", "medium", "high"]
LockIn = Literal["low", "medium", "high"]
InstallationStatus = Literal["active", "inactive", "error", "setup_required"]
Billing = Literal["vercel", "direct", "free"]
CapabilityCategory = Literal["supabase", "vercel", "digitalocean", "custom"]
Maturity = Literal["scaffold", "beta", "prod"]

EntryKey = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Route = Annotated[str, Field(pattern=r"^/[a-z0-9/_-]*$")]
"""A page of the console."""
VARIABLE_PATTERN = r"^[A-Z][A-Z0-9_]*$"
VariableName = Annotated[str, Field(pattern=VARIABLE_PATTERN)]
WebAddress = Annotated[str, Field(pattern=r"^https://\S+$")]
TableName = Annotated[str, Field(pattern=r"^ops\.[a-z][a-z0-9_]*$")]


class BadSsot(ValueError):
    """SSOT says something that cannot be done; the message names file, field and fix"""


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


OneOrMore = Annotated[list[str], BeforeValidator(_listed)]
"""A text or a list of them."""


class Strict(BaseModel):
    """A mapping that takes no key but its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _base_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable or re.search(r"[\s?#@]", value):
        raise PydanticCustomError(
            "no_base_url", "give an address like https://api.example.com, without a login and without a query"
        )
    return value.rstrip("/")


def _name_of_variable(value: str) -> str:
    if not re.fullmatch(VARIABLE_PATTERN, value):
        raise PydanticCustomError(
            "no_variable", "give the name of the variable that holds it, as GITHUB_TOKEN, never its value"
        )
    return value


class Api(Strict):
    """How the API of a source is asked, for polls."""

    base_url: Annotated[str, AfterValidator(_base_url)] = Field(
        description="what its paths are put behind, without a login"
    )
    auth: Literal["bearer", "basic", "header"] = Field(
        description="how the secret is shown: as a bearer token, as a password, or in a header of its own"
    )
    secret: Annotated[str, AfterValidator(_name_of_variable)] = Field(
        description="name of the environment variable that holds it, never its value"
    )
    user: str | None = Field(default=None, pattern=r"^[!-9;-~]{1,200}$", description="for basic")
    header: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9-]{1,64}$", description="for header: X-API-Key"
    )

    @model_validator(mode="after")
    def _as_it_is_shown(self) -> Self:
        for field, auth in (("user", "basic"), ("header", "header")):
            given = getattr(self, field) is not None
            if given and self.auth != auth:
                raise PydanticCustomError(
                    "of_another_auth", f"{field} belongs to auth: {auth}: remove it, or change auth"
                )
            if not given and self.auth == auth:
                raise PydanticCustomError("auth_needs", f"{field} is missing: auth: {auth} needs it")
        return self


class Limit(Strict):
    """A bucket of tokens: `burst` at once, and `per_s` more each second."""

    per_s: float = Field(gt=0, le=1_000_000, description="so many each second, for as long as they like")
    burst: int = Field(ge=1, le=1_000_000, description="so many at once after a silence")


class ProviderFile(Strict):
    """ssot/providers/<name>.yaml: a source of deliveries."""

    name: str = Field(pattern=SOURCE_PATTERN)
    provider: str | None = Field(
        default=None, description="whose code understands it; the source's own name unless given"
    )
    endpoint: str | None = Field(
        default=None, pattern=ENDPOINT_PATTERN, description="where it posts to; none for what is only polled"
    )
    secrets: list[VariableName] = Field(
        default=[], description="names of environment variables, never values"
    )
    unsigned: bool = False
    """True only where the sender cannot sign at all; everybody can then write into the log."""
    limits: Limit | None = Field(
        default=None,
        description="how many genuine requests are taken; what ssot/limits.yaml says of sources unless given",
    )
    events: list[str] = []
    api: Api | None = Field(default=None, description="how its API is asked; none where it is not polled")
    poll_interval_s: int | None = Field(
        default=None, ge=60, description="how often a poll repairs what was missed"
    )
    quiet_s_max: int | None = Field(
        default=None, ge=60, description="after how many seconds without a webhook it counts as stale"
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

    @cached_property
    def stated(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """The traits that it states, each with its patterns. Kept: every build and deployment asks every rule."""
        return tuple((trait, tuple(patterns)) for trait in TRAITS if (patterns := getattr(self, trait)))

    def matches(self, traits: Mapping[str, Iterable[str]], hidden: str | None = None) -> bool:
        """Whether every stated trait has a value that one of its patterns fits (`*` stands for any text).

        A trait that is `hidden` might fit.
        """
        for trait, patterns in self.stated:
            if trait == hidden:
                continue
            values = traits.get(trait, ())
            if not any(fnmatchcase(value, pattern) for value in values for pattern in patterns):
                return False
        return bool(self.stated)


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
        given = _given(traits)
        return next((rule.env for rule in self.rules if rule.matches(given)), "unknown")

    def surely_of(self, hidden: str, **traits: str | Iterable[str] | None) -> Env | None:
        """The environment of a thing of which one trait is not shown; None where that trait might decide."""
        given = _given(traits)
        decisive = next((rule for rule in self.rules if rule.matches(given, hidden)), None)
        return decisive.env if decisive and decisive.matches(given) else None


def _given(traits: Mapping[str, str | Iterable[str] | None]) -> dict[str, tuple[str, ...]]:
    return {
        name: (value,) if isinstance(value, str) else tuple(value)
        for name, value in traits.items()
        if value is not None
    }


class LimitsFile(Strict):
    """ssot/limits.yaml: how much may be asked of the door."""

    sources: Limit = Field(
        default=Limit(per_s=500, burst=20_000),
        description="genuine requests of each source that states no limits of its own",
    )
    addresses: Limit = Field(
        default=Limit(per_s=10, burst=1_000), description="refused and repeated requests of each address"
    )


USUAL_LIMITS = LimitsFile()


class IntegrationFields(BaseModel):
    """What is said about an integration, by its entry in SSOT and by the event that declares it."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    name: str
    category: IntegrationCategory
    provider: IntegrationProvider
    """By whom it is sold and connected."""
    description: str | None = None
    baseline_allowed: bool = True
    """Whether it belongs to what every platform of ours may use."""
    plan_tier: PlanTier = "baseline"
    cost_band: CostBand = "included"
    vendor_lock_in: LockIn = "low"
    capabilities: list[str] = []
    surfaces: list[str] = []
    """Pages of the console that show it."""
    env_keys: list[str] = []
    """Names of the variables that it needs, never their values."""
    docs_url: str | None = None
    notes: str | None = None
    installed: InstallationStatus | None = None
    """How it is meant to be installed; null where it is not. What was observed counts more."""
    billing: Billing | None = None
    """Who sends the bill."""


class Integration(IntegrationFields, Strict):
    """One entry of ssot/integrations.yaml."""

    surfaces: list[Route] = []
    env_keys: list[VariableName] = []
    docs_url: WebAddress | None = None

    @model_validator(mode="after")
    def _billed_as_installed(self) -> Self:
        if self.billing is not None and self.installed is None:
            raise ValueError("billing is said of what is installed: say installed, too, or remove billing")
        return self


class IntegrationsFile(Strict):
    """ssot/integrations.yaml."""

    integrations: dict[EntryKey, Integration]


class CapabilityFields(BaseModel):
    """What is said about a capability, by its entry in SSOT and by the event that declares it."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    name: str
    category: CapabilityCategory
    maturity: Maturity = "scaffold"
    data_source: str | None = None
    """The table that shows it at work: `ops.<table>`."""
    baseline_allowed: bool = True
    surfaces: list[str] = []
    """Pages of the console that show it."""
    description: str | None = None


class Capability(CapabilityFields, Strict):
    """One entry of ssot/capabilities.yaml."""

    data_source: TableName | None = None
    surfaces: list[Route] = []


class CapabilitiesFile(Strict):
    """ssot/capabilities.yaml."""

    capabilities: dict[EntryKey, Capability]


class StarterFields(BaseModel):
    """What is said about a starter, by its entry in SSOT and by the event that declares it."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    title: str
    description: str | None = None
    framework: str | None = None
    tags: list[str] = []
    deploy_url: str | None = None
    """The address that deploys a copy of it."""
    demo_url: str | None = None
    repo_path: str | None = None
    """Where its code is: `<org>/<repo>/<folder>`."""


class Starter(StarterFields, Strict):
    """One entry of ssot/starters.yaml."""

    deploy_url: WebAddress | None = None
    demo_url: WebAddress | None = None


class StartersFile(Strict):
    """ssot/starters.yaml: by source, then by slug."""

    starters: dict[EntryKey, dict[EntryKey, Starter]]


@dataclass(frozen=True, slots=True)
class Ssot:
    """Everything that the YAML files say. A catalogue without a file is None: nothing is said about its kind."""

    providers: Mapping[str, ProviderFile]
    environments: Environments = Environments()
    limits: LimitsFile = USUAL_LIMITS
    integrations: Mapping[str, Integration] | None = None
    capabilities: Mapping[str, Capability] | None = None
    starters: Mapping[str, Mapping[str, Starter]] | None = None
