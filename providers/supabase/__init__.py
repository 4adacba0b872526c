"""Supabase: database webhooks, one request for each changed row.

https://supabase.com/docs/guides/database/webhooks
What we rely on, and the traps: contracts/upstream/supabase.md
"""

from providers.port import Provider
from providers.supabase.normalize import normalize
from providers.supabase.options import SupabaseOptions
from providers.supabase.verify import compose, open_verification

PROVIDER = Provider(
    name="supabase",
    verify=open_verification,
    normalize=normalize,
    compose=compose,
    options=SupabaseOptions,
)
