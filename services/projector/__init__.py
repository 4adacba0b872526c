"""Folds deliveries into `ops.*`: understand, merge, write, publish, acknowledge. `python -m services.projector`."""
