"""Authorize callers: rules for every root field, checked against the caller's current rights."""
