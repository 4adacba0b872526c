"""GitHub: sample deliveries, what they must become, and the traps among them."""
