"""The SDK against servers that others have written."""
