"""Every provider, and the sources that SSOT makes of them."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from contracts.ssot import BadSsot, ProviderFile, Ssot
from providers import (
    cloudevents,
    digitalocean,
    generic,
    github,
    mailgun,
    odooops,
    plane,
    slack,
    standard,
    supabase,
    supabase_management,
    vercel,
)
from providers.port import Provider, Source

PROVIDERS: Mapping[str, Provider] = {
    provider.name: provider
    for provider in (
        cloudevents.PROVIDER,
        digitalocean.PROVIDER,
        generic.PROVIDER,
        github.PROVIDER,
        mailgun.PROVIDER,
        odooops.PROVIDER,
        plane.PROVIDER,
        slack.PROVIDER,
        standard.PROVIDER,
        supabase.PROVIDER,
        supabase_management.PROVIDER,
        vercel.PROVIDER,
    )
}


def sources(ssot: Ssot) -> dict[str, Source]:
    """The sources that SSOT declares, by name; raises BadSsot naming file, field and fix."""
    return {name: _source(file, ssot) for name, file in ssot.providers.items()}


def _source(file: ProviderFile, ssot: Ssot) -> Source:
    where = f"ssot/providers/{file.name}.yaml"
    provider = PROVIDERS.get(file.provider_name)
    if provider is None:
        known = ", ".join(sorted(PROVIDERS))
        raise BadSsot(f"{where}: no provider is called {file.provider_name}; known: {known}")
    if (file.endpoint is None) != (provider.verify is None):
        wrong = "needs an endpoint" if file.endpoint is None else "takes no requests: remove the endpoint"
        raise BadSsot(f"{where}: {provider.name} {wrong}")
    if file.api is not None and provider.polling is None:
        raise BadSsot(f"{where}: the API of {provider.name} is not polled: remove api")
    if file.api is not None and file.poll_interval_s is None:
        raise BadSsot(f"{where}: poll_interval_s is missing: say how often, in seconds, it is polled")
    if file.unsigned and not provider.may_be_unsigned:
        raise BadSsot(f"{where}: {provider.name} proves who it is: remove unsigned")
    try:
        options = provider.options.model_validate(file.options)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        at = ".".join(str(part) for part in ("options", *first["loc"]))
        raise BadSsot(f"{where}: {at}: {first['msg'].removeprefix('Value error, ')}") from None
    if (problem := provider.problem(file, options)) is not None:
        raise BadSsot(f"{where}: {problem}")
    return Source(
        name=file.name, provider=provider, file=file, options=options, environments=ssot.environments
    )
