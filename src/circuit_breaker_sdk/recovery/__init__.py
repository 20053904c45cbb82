"""Recovery: how subscriptions come back after a lost connection, and what is done about missing events."""
