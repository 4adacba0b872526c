"""Supabase's management API, which is read: what we rely on stands in contracts/upstream/supabase_management.md."""

from providers.port import Provider
from providers.supabase_management.normalize import normalize
from providers.supabase_management.options import ManagementOptions
from providers.supabase_management.polling import POLLING

PROVIDER = Provider(
    name="supabase_management",
    verify=None,
    normalize=normalize,
    compose=None,
    options=ManagementOptions,
    polling=POLLING,
)
