"""The door: verifies a webhook and stores it before it answers. `python -m services.ingest`."""
