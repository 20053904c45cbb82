"""Permissions: rules for every root field and stream, checked against the caller's present rights."""
