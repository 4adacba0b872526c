"""What two parts of OdooOps must agree on: deliveries, events, versions, SSOT shapes. No I/O."""
