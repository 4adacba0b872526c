"""OdooOps beside what others would use for the same work, on the same machine, servers and deliveries."""
