"""The SDK against servers that others have written, and our server against their clients."""
