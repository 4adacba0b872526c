"""Reads what APIs show and stores what changed: it repairs what webhooks missed. `python -m services.poller`."""
