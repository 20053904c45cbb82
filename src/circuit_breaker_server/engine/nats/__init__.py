"""Resources with their place in the event log."""
