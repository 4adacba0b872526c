"""Tells Slack what the events are worth telling, each thing once. `python -m services.notifier`."""
