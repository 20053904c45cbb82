"""Rules: what can be asked of a resource's data and metadata."""
