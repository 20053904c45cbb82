"""Security: bearer tokens, API keys, the access policy, rate limits, the audit log."""
