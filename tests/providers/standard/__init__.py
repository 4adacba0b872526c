"""Standard Webhooks: who may deliver by it, what such deliveries mean, and the traps."""
