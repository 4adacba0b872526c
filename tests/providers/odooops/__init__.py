"""OdooOps itself."""
