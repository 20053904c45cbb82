"""The root fields of queries and mutations, a file per domain, and what the engine does for each."""
