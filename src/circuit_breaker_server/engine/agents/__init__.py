"""Agents: which runs for resources in which state, and their runs."""
