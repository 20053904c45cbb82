"""Authenticate principals and read their rights: bearer tokens, API keys, the access policy."""
