"""Experiments with several servers ("nodes") that share one event log."""
