"""Storage beside the log: secrets, private files, and a cache of recently used values."""
