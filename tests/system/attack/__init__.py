"""Attacks on both sides of the protocol: what a hostile peer sends, and what must still hold. Not shipped."""
