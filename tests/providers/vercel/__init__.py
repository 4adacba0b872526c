"""Tests of what Vercel sends and shows."""
