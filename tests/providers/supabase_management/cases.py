"""Supabase's management API as a source: it has no deliveries of its own, as we say ourselves what a poll finds."""

from pathlib import Path

from providers.supabase_management import PROVIDER
from runtime.ssot import load
from tests.providers.case import Case
from tests.providers.driving import source_of

SOURCE = source_of(
    PROVIDER, environments=load(Path(__file__).parents[3] / "ssot").environments, poll_interval_s=3600
)
CASE = Case(source=SOURCE, samples=[])
