"""Agents: their configurations for states of workflows, and their runs."""
