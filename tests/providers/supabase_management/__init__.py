"""Supabase's management API: what a poll asks, says and never stores."""
