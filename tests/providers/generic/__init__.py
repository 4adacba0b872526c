"""Senders without code: what SSOT can express, and that it holds."""
