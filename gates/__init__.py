"""What must hold, as pure checks. None yet."""
