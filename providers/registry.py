"""Every provider."""

from __future__ import annotations

from collections.abc import Mapping

from providers import github
from providers.port import Provider

PROVIDERS: Mapping[str, Provider] = {provider.name: provider for provider in (github.PROVIDER,)}
