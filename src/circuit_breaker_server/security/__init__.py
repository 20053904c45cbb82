"""Who asks, how long that holds, and what they may do: bearer tokens, API keys, the access policy."""
